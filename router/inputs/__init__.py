"""Turns what a client sent into checked values and spooled files.

The HTTP APIs, which create predictions, import this. The files that came with a prediction are
deleted by `router.predictions.lifecycle`, when it ends or is refused.
"""
