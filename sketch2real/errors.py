"""The package's exceptions, with messages for the person who sent the sketch.

A server in front of the package recognises them by class name: `InvalidInput` is the caller's to
fix (HTTP 422), any other exception is an error of the model (HTTP 500).
"""


class InvalidInput(ValueError):
    """The input cannot be used; the message says what to change."""


class OutOfMemory(RuntimeError):
    """The GPU (or the machine) has too little memory even for one picture of this size.

    Raised after everything of the failed attempt is freed, so that the next request can run.
    """


class BadWeights(RuntimeError):
    """`WEIGHTS` names no preset, or a folder or hub id whose pipeline class is not one of ours."""
