"""The form of a traceback, and how the router reads it.

tests/e2e/test_which_line_failed.py has the rest.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from router.models.tracebacks import Raised, last_raised, last_traceback, without_tracebacks
from router.models.worker_hook import callme_tracebacks
from router.models.worker_hook.callme_tracebacks import HEAD_LINES, PREFIX, TAIL_LINES, lines_of

SOURCE = """
import json

def again(n):
    return again(n + 1)

def chain():
    try:
        json.loads("{")
    except ValueError as error:
        raise RuntimeError("first\\nsecond") from error

def several():
    raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])

def silent():
    class Odd(Exception):
        def __str__(self):
            raise TypeError
    raise Odd
"""


@pytest.fixture
def raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lines for what a function of the package raises."""
    monkeypatch.setattr(callme_tracebacks, "PACKAGE", str(tmp_path))
    (tmp_path / "code.py").write_text(SOURCE)
    (tmp_path / ".venv").mkdir()
    functions: dict[str, Any] = {}
    exec(compile(SOURCE, str(tmp_path / "code.py"), "exec"), functions)  # noqa: S102 - written above

    def lines(name: str, *arguments: Any) -> list[str]:
        try:
            functions[name](*arguments)
        except BaseException as error:
            return lines_of(error)
        pytest.fail("nothing was raised")

    return lines


def test_an_endless_recursion(raised: Any) -> None:
    """Python's own short form; its end is there."""
    lines = raised("again", 0)
    assert len(lines) < 20
    assert any("more times]" in line for line in lines)
    assert lines[0].startswith("raised at code.py:5 in again: RecursionError: maximum")


def test_a_cause(raised: Any) -> None:
    """The cause comes first. A message of two lines does not look like another traceback."""
    lines = raised("chain")
    assert lines[0] == "raised at code.py:11 in chain: RuntimeError: first"
    cause = lines.index("The exception above was the direct cause of this one:")
    assert lines[cause - 1].startswith("json.decoder.JSONDecodeError")
    assert lines[-2:] == ["RuntimeError: first", "second"]


def test_groups_and_odd_exceptions(raised: Any) -> None:
    """Each part of a group; an exception without a text."""
    lines = raised("several")
    assert "  ValueError: a" in lines
    assert "  KeyError: 'b'" in lines
    assert raised("silent")[0] == "raised at code.py:20 in silent: Odd: (its text cannot be read)"


def test_a_long_one_is_cut(raised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning and its end are kept."""
    monkeypatch.setattr(callme_tracebacks, "HEAD_LINES", 2)
    monkeypatch.setattr(callme_tracebacks, "TAIL_LINES", 1)
    lines = raised("chain")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[3].endswith("lines left out")
    assert lines[4:] == ["second"]
    assert HEAD_LINES + TAIL_LINES <= 100  # the router keeps 200 lines


def test_an_exception_of_libraries_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has no place; the last frames are shown."""
    monkeypatch.setattr(callme_tracebacks, "PACKAGE", str(tmp_path))
    with contextlib.suppress(ValueError):
        try:
            json.loads("{")
        except ValueError as error:
            lines = lines_of(error)
            raise
    assert lines[0].startswith("raised: JSONDecodeError: Expecting")
    assert any('File "json/decoder.py"' in line for line in lines)


def printed(*lines: str) -> list[str]:
    """As the worker hook prints them."""
    return [PREFIX + line for line in lines]


def test_it_is_read_again() -> None:
    """The last one counts, and its place may name a thread."""
    first = printed("raised at a.py:1: KeyError: 'x'", "KeyError: 'x'")
    last = printed("raised at b.py:2 in f in thread 'T 1': E: said: more", "E: said: more")
    lines = ["before", *first, "between", *last, "after"]
    assert last_raised(lines) == Raised("b.py:2 in f in thread 'T 1'", "E: said: more")
    assert last_traceback(lines) == [line.removeprefix(PREFIX) for line in last]
    assert last_raised(["before"]) is None
    assert last_raised(printed("raised: ValueError: x")) == Raised("", "ValueError: x")
    assert without_tracebacks("\n".join(lines)) == "before\nbetween\nafter"
    assert without_tracebacks("a ¦ b\n") == "a ¦ b\n"
