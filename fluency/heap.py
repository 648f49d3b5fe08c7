"""Memory that was freed goes back to the machine.

The C library keeps it for the next request. Between two predictions, and between the steps of one,
that is 50 to 150 MB: what one step needs at once and the next does not.
"""

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


def trim() -> None:
    """Give it back: some milliseconds, and as many when it is taken again."""
    if _trim:
        _trim(0)
