"""Reads what the worker hook prints of an exception (`worker_hook/callme_tracebacks.py`).

A traceback is for the model's operator and for the owner of the prediction. It shows lines of the
package's code, so it is left out of what web clients get.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from router.models.worker_hook.callme_tracebacks import PREFIX, RAISED

SUMMARY = re.compile(rf"{PREFIX}{RAISED}(?: at (?P<location>.+?))?: (?P<error>.+)")
LINES = re.compile(rf"^{PREFIX}.*(?:\n|\Z)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception. `location`: as in "run.py:12 in setup", "" when it is not in the package.
    `error`: "Class: message"."""

    location: str
    error: str


def is_of_traceback(line: str) -> bool:
    """Whether the line is part of a traceback that the worker hook printed."""
    return line.startswith(PREFIX)


def last_raised(lines: Iterable[str]) -> Raised | None:
    """Return the last exception that these lines tell of; None when there is none."""
    last = None
    for line in lines:
        if line.startswith(PREFIX) and (found := SUMMARY.fullmatch(line.rstrip("\n"))):
            last = Raised(found["location"] or "", found["error"])
    return last


def last_traceback(lines: Iterable[str]) -> list[str]:
    """Return the lines of the last traceback, without the mark that each begins with."""
    last: list[str] = []
    for line in lines:
        if not line.startswith(PREFIX):
            continue
        if SUMMARY.fullmatch(line.rstrip("\n")):
            last.clear()
        last.append(line.removeprefix(PREFIX))
    return last


def without_tracebacks(log: str) -> str:
    """Return the log without the lines of tracebacks."""
    return LINES.sub("", log) if PREFIX in log else log


def with_location(reason: str, location: str) -> str:
    """Return the reason of a failure, with the location if there is one. Not for web clients."""
    return f"{reason} ({location})" if location else reason
