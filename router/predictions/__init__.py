"""Predictions: they are created, run, cancelled, stored and reported by webhook.

It is imported by the HTTP APIs, `router.remote`, `router.cli`, and the modules that put the service
together: `router.composition`, `router.backends`, `router.disk` and `router.preload`.
"""
