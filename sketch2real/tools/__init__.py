"""Training of the demo weights. Not part of the image."""
