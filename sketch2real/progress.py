"""A prediction's progress, as lines of its logs.

Not Cog's streamed outputs: those would turn the one output object into a list for every caller.
"""

import sys

import preview
from PIL import Image


def percent(done: int, steps: int) -> None:
    """`painting: 50 % (4/8 steps)`, over all pictures; it never falls."""
    _say(f"painting: {100 * done // steps} % ({done}/{steps} steps)")


def show(small: Image.Image) -> None:
    """`preview: data:image/webp;base64,…`, a picture of at most 128 px a side."""
    _say(f"preview: {preview.as_data_uri(small)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
