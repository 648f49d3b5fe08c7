"""A caller's trace is continued when its headers are valid, and ignored otherwise."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from router.trace_context import TraceContext, onward, parse, within

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_valid_parent() -> None:
    """Its ids, its flags that are known, and the vendors' state."""
    assert parse(PARENT, "a=b,c=d") == TraceContext(TRACE, SPAN, flags=1, state="a=b,c=d")
    assert parse(f" {PARENT} ") == TraceContext(TRACE, SPAN)
    assert parse(f"00-{TRACE}-{SPAN}-ff") == TraceContext(TRACE, SPAN, flags=3)
    later = parse(f"cc-{TRACE}-{SPAN}-00-what.the.future.adds")
    assert later is not None
    assert later.header == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}\n",
        f"{PARENT},{PARENT}",
    ],
)
def test_any_other_is_none(wrong: str) -> None:
    """The specification's cases: length, case, version ff, ids of zeros."""
    assert parse(wrong.replace("\n", "\x00")) is None


@pytest.mark.parametrize("state", ["a=" + "b" * 512, "a=\x07", "a=é"])
def test_a_state_that_cannot_be_sent_on_is_left_out(state: str) -> None:
    """The trace goes on without it."""
    assert parse(PARENT, state) == TraceContext(TRACE, SPAN)


def test_a_child_is_found_again_by_its_name() -> None:
    """Who sends it and who reports it agree. Another name, or another request, has another id."""
    request = TraceContext(TRACE, SPAN, recorded=True)
    child = request.child("run")
    assert child == request.child("run")
    assert (child.trace_id, child.parent_id) == (TRACE, SPAN)
    others = {request.child("queue").span_id, replace(request, span_id="1" * 16).child("run")}
    assert child.span_id not in others | {SPAN}
    assert parse(child.header) == TraceContext(TRACE, child.span_id)


def test_what_is_not_recorded_goes_on_as_it_came() -> None:
    """A service that reports no span must not send an id of its own."""
    caller = TraceContext(TRACE, SPAN, state="a=b")
    assert caller.child("run") is caller
    assert caller.headers == {"traceparent": PARENT, "tracestate": "a=b"}


def test_onward() -> None:
    """Requests to another machine have the headers only within a span."""
    assert onward() == {}
    with within(TraceContext(TRACE, SPAN)):
        assert onward() == {"traceparent": PARENT}
        with within(None):
            assert onward() == {}
    assert onward() == {}
