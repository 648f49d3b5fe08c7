"""Predictions: they are created, run, cancelled, stored and reported by webhook.

The HTTP APIs and `router.app` import this package.
"""
