"""The boxes that a request came through. When the models of boxes lead to each other, the request
ends with an error instead of running in a circle.

The list is sent like HTTP's `Via` (RFC 9110, 7.6.3), but in a header of its own, since the key
check takes `Via` as the sign of a proxy. A box that finds its own id in the list refuses the
request.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

from router.errors import LoopDetected

HEADER = "X-Callme-Via"
# The id is for this process: two routers on one machine are two boxes.
BOX_ID = secrets.token_hex(8)
# A longer chain of boxes is a mistake, or an attack that makes the header grow.
MAX_HOPS = 8

_ID = re.compile(r"[0-9a-f]{16}")
_via: ContextVar[str] = ContextVar("callme_via", default="")


def read(header: str) -> str:
    """The ids of boxes in the header's value, separated by commas; anything else in it is left out.
    Raises LoopDetected when this box is one of them, or when there are more than MAX_HOPS."""
    ids = [i for part in header.split(",") if _ID.fullmatch(i := part.strip())]
    if BOX_ID in ids:
        raise LoopDetected(
            "Cannot serve: the request was at this box before and came back by a back-end"
        )
    if len(ids) > MAX_HOPS:
        raise LoopDetected(f"Cannot serve: the request came through more than {MAX_HOPS} boxes")
    return ", ".join(ids)


def current() -> str:
    """The boxes that the present request came through, as in the header; "" for none."""
    return _via.get()


def onward() -> str:
    """The header's value for a request to another box: `current()` and this box."""
    return ", ".join(filter(None, (_via.get(), BOX_ID)))


@contextlib.contextmanager
def coming_through(via: str) -> Iterator[None]:
    """Set `current()` within the block, and in the tasks that are started in it. Use "" for work
    that belongs to no request."""
    token = _via.set(via)
    try:
        yield
    finally:
        _via.reset(token)
