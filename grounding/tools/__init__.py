"""Conversion of checkpoints, and training of the drawn weights. Not part of the image."""
