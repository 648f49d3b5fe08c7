"""The HTTP server: one module for each API, and the layers that every request passes.

Only `router.app` and `router.composition`, which put the service together, import it.
"""
