"""Calibration of the score map. Not part of the image."""
