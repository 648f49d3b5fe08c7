"""What can go wrong, in words for the person who sent the sketch.

Whoever fronts this package tells them apart by class name: `InvalidInput` is the sender's to mend
(HTTP 422), everything else is ours (HTTP 500).
"""


class InvalidInput(ValueError):
    """The request cannot be served as it stands; the message says what to change."""


class OutOfMemory(RuntimeError):
    """The accelerator (or the machine) had too little memory for this picture, even one at a time.

    Raised after everything of the failed attempt has been freed, so that the next request runs.
    """


class BadWeights(RuntimeError):
    """`WEIGHTS` names no preset, or a folder or hub id whose pipeline class is not one of ours."""
