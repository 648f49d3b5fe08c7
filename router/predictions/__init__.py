"""The lives of predictions: created, run, cancelled, answered, announced by webhook.

Imported by the HTTP API and the composition.
"""
