"""The HTTP server: the APIs, in `apis`, and the layers that every request passes.

It is imported by `router.app`, `router.composition`, `router.preload` and `router.server_limits`,
which put the service together, and by `serve` and `public` of `router.cli`.
"""
