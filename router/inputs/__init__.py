"""Turns what a client sent into checked values and spooled files.

The HTTP APIs, which create predictions, import this.
"""
