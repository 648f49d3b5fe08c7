"""Where a request is in a trace: W3C Trace Context (https://www.w3.org/TR/trace-context/).

A `traceparent` names a trace and one span in it. A service that records spans sends its own span
onward; one that records none sends on what it got.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

from msgspec import Struct
from msgspec.structs import replace

PARENT_HEADER = "traceparent"
STATE_HEADER = "tracestate"
# Of an answer (Trace Context level 2, a draft): the span that answered.
RESPONSE_HEADER = "traceresponse"
SAMPLED = 1
# The flags that are known: sampled, and that the id is random. Others are not sent on.
KNOWN_FLAGS = 3
# A later version may add fields at the end, after a dash.
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
# A vendor's list, at most so long; what is longer is left out.
MAX_STATE_CHARS = 512
_STATE = re.compile(r"[ -~]*")


class TraceContext(Struct, frozen=True):
    """One span of a trace. `trace_id`: 32 hex digits. `span_id`: 16. `parent_id`: the span above
    it, "" for the first of a trace. `flags`: 8 bits. `state`: the vendors' `tracestate`.
    `recorded`: the span is this router's; else it is the caller's, and is only sent on."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    flags: int = SAMPLED
    state: str = ""
    recorded: bool = False

    @property
    def header(self) -> str:
        """The value of `traceparent`, and of `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that belongs to this span."""
        if not self.state:
            return {PARENT_HEADER: self.header}
        return {PARENT_HEADER: self.header, STATE_HEADER: self.state}

    def child(self, name: str) -> TraceContext:
        """The span of this name below this one. The same name gives the same span, so who starts
        it and who reports it need not speak to each other. What is not recorded has none."""
        if not self.recorded:
            return self
        key = f"{self.trace_id}{self.span_id}{name}".encode()
        digest = hashlib.blake2b(key, digest_size=8).hexdigest()
        return replace(self, span_id=digest, parent_id=self.span_id)


def parse(parent: str, state: str = "") -> TraceContext | None:
    """The caller's span, from its headers; None when `parent` is not a valid `traceparent`."""
    found = _PARENT.fullmatch(parent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    usable = len(state) <= MAX_STATE_CHARS and _STATE.fullmatch(state)
    known = int(flags, 16) & KNOWN_FLAGS
    return TraceContext(trace_id, span_id, flags=known, state=state if usable else "")


def new_trace_id() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def new_span_id() -> str:
    """16 random hex digits."""
    return secrets.token_hex(8)


_current: ContextVar[TraceContext | None] = ContextVar("callme_trace", default=None)


def onward() -> dict[str, str]:
    """The headers for a request to another machine, by the span that is set with `within`."""
    trace = _current.get()
    return trace.headers if trace is not None else {}


@contextlib.contextmanager
def within(trace: TraceContext | None) -> Iterator[None]:
    """Set the span for `onward` within the block, and in the tasks that are started in it. None:
    the work belongs to no trace."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
