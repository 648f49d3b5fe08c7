"""Conversion of checkpoints, and training of the demo weights. Not part of the image."""
