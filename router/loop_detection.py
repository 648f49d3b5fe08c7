"""Through which boxes a request has come, so that boxes whose models lead to each other end in
an error and not in a circle.

The list travels as HTTP's `Via` does (RFC 9110, 7.6.3), in a header of its own, since `Via`
means to the guard that a proxy stands between. A box that finds itself in it refuses.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

from router.errors import LoopDetected

HEADER = "X-Callme-Via"
# Of this process: two routers on one machine are two boxes.
BOX_ID = secrets.token_hex(8)
# A chain of boxes that is longer is a mistake, or an attempt to have a header that grows.
MAX_HOPS = 8

_ID = re.compile(r"[0-9a-f]{16}")
_via: ContextVar[str] = ContextVar("callme_via", default="")


def read(header: str) -> str:
    """The ids of boxes in a header's value, by commas; whatever else is in it is left out.
    Raises LoopDetected when this box is one of them, or they are more than MAX_HOPS."""
    ids = [i for part in header.split(",") if _ID.fullmatch(i := part.strip())]
    if BOX_ID in ids:
        raise LoopDetected("Cannot serve: the request has been here before, by way of a back-end")
    if len(ids) > MAX_HOPS:
        raise LoopDetected(f"Cannot serve: the request came through more than {MAX_HOPS} boxes")
    return ", ".join(ids)


def current() -> str:
    """Through which boxes the request came that this code works for; "" for none."""
    return _via.get()


def onward() -> str:
    """What a request to another box says: those, and this one."""
    return ", ".join(filter(None, (_via.get(), BOX_ID)))


@contextlib.contextmanager
def coming_through(via: str) -> Iterator[None]:
    """Work for a request that came through these boxes, within; tasks that are begun there do
    so to their end. "" for work that is nobody's."""
    token = _via.set(via)
    try:
        yield
    finally:
        _via.reset(token)
