"""From what a client sent to checked values and spooled files.

Imported by the predictions' callers: the HTTP API.
"""
