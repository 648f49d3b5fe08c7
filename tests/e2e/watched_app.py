"""The router's application with a meter in it: `uvicorn tests.e2e.watched_app:app --loop asyncio`.

It appends a line to the file that WATCHED_LOG names for each turn of the event loop that took the
loop's thread over LEAST_S of processor time, and one for each JSON text of LEAST_BYTES or more that
was parsed, in whatever thread. Processor time, unlike the clock, is the same on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import msgspec
import orjson

LEAST_S = 0.002
LEAST_BYTES = 10_000
MARK = b"a-needle-at-its-end"
WATCHED = "WATCHED_LOG"


def note(kind: str, *values: object) -> None:
    """Append a line."""
    with open(os.environ[WATCHED], "a") as log:  # noqa: PTH123 - it is written from several threads
        log.write(f"{kind} {' '.join(map(str, values))}\n")


def watch_turns() -> None:
    """Measure the loop from the end of one wait to the beginning of the next."""
    wait = selectors.EpollSelector.select
    woke_s: float | None = None

    def watched_wait(self: Any, timeout: float | None = None) -> Any:
        nonlocal woke_s
        took_s = 0.0 if woke_s is None else time.thread_time() - woke_s
        if took_s > LEAST_S:
            note("turn", took_s)
        found = wait(self, timeout)
        woke_s = time.thread_time()
        return found

    selectors.EpollSelector.select = watched_wait  # type: ignore[method-assign]


def watched(parse: Callable[..., Any]) -> Callable[..., Any]:
    """The parser, measured: how many bytes, how long, and whether the needle is among them."""

    @wraps(parse)
    def measured(text: Any, *args: Any, **kwargs: Any) -> Any:
        began_s = time.thread_time()
        try:
            return parse(text, *args, **kwargs)
        finally:
            took_s = time.thread_time() - began_s
            raw = text.encode() if isinstance(text, str) else bytes(text)
            if len(raw) >= LEAST_BYTES:
                note("parse", took_s, len(raw), int(MARK in raw))

    return measured


if WATCHED in os.environ:
    assert issubclass(selectors.DefaultSelector, selectors.EpollSelector)
    assert asyncio.SelectorEventLoop is asyncio.DefaultEventLoopPolicy._loop_factory  # type: ignore[attr-defined]
    watch_turns()
    msgspec.json.decode = watched(msgspec.json.decode)
    orjson.loads = watched(orjson.loads)

from api import app  # noqa: E402 - the parsers are watched first

__all__ = ["app"]
