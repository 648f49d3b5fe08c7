"""Headers that say how a client wants to be answered."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from router.errors import MalformedRequest
from router.http.prediction_params import deadline_at, preferred_wait_s, prefers_async, priority


def asking(**headers: str) -> Request:
    """A request with these headers."""
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("prefer", "is_async", "wait_s"),
    [
        ("respond-async", True, None),
        ("Respond-Async; x=1, wait=5", True, 5.0),
        ("wait", False, 60.0),
        ("wait=7", False, 7.0),
        ("wait = 7", False, 7.0),
        ('wait="7"', False, 7.0),
        ("wait=soon", False, 60.0),
        ("wait=-1", False, 60.0),
        ("waiting", False, None),
        ("", False, None),
    ],
)
def test_prefer(prefer: str, is_async: bool, wait_s: float | None) -> None:
    """RFC 7240's list, in any case; a wait that cannot be read is the default one."""
    request = asking(prefer=prefer)
    assert prefers_async(request) is is_async
    assert preferred_wait_s(request, 60.0) == wait_s
    assert not prefers_async(asking())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("5s", 5),
        ("1m", 60),
        ("1h", 3600),
        ("1h30m45s", 5445),
        ("2m30", 150),
        ("0.5s", 0.5),
        (" 5S ", 5),
    ],
)
def test_cancel_after(text: str, seconds: float) -> None:
    """Replicate's durations, counted from now."""
    assert deadline_at(asking(cancel_after=text), 1000.0) == 1000.0 + seconds
    assert deadline_at(asking(), 1000.0) is None


@pytest.mark.parametrize("text", ["", "soon", "0", "0s", "-5", "5d", "s", "1s1m", "1e3", "٣"])
def test_cancel_after_that_cannot_be_read(text: str) -> None:
    """Refused, rather than run without a deadline."""
    with pytest.raises(MalformedRequest):
        deadline_at(asking(cancel_after=text.encode().decode("latin-1")), 1000.0)


def test_priority() -> None:
    """0 to 2, and 1 where nothing is said."""
    assert [priority(asking(x_callme_priority=text)) for text in ("0", " 1 ", "2")] == [0, 1, 2]
    assert priority(asking()) == 1
    for text in ("3", "-1", "high", "", "0.5"):
        with pytest.raises(MalformedRequest):
            priority(asking(x_callme_priority=text))
