"""Beside the runner."""

GREETINGS = ("hello", "good morning")
