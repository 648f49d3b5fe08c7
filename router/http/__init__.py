"""The HTTP server: one module for each API, and the layers that every request passes.

Only `router.app`, which puts the service together, imports it.
"""
