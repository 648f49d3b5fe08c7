"""Predictions: they are created, run, cancelled, stored and reported by webhook.

The HTTP APIs and `router.composition` import this package.
"""
