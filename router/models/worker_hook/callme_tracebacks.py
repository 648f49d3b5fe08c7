"""Prints tracebacks of a package's exceptions. Standard library only.

`callme_runner_watch.py` says when. During a prediction, coglet puts what is printed into the
prediction's log. When a set-up raises, its worker ends at once, and the last lines may be lost. So
a set-up's traceback is also written to a file for the router.

The frames of the package's own files are shown in full. Calls within libraries are one line. Each
line begins with PREFIX, so that the router can leave tracebacks out of what web clients get.
"""

import contextlib
import os
import re
import sys
import sysconfig
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException

PREFIX = "\u00a6 "
# The first line of a traceback: "raised at PLACE: Class: message", or without "at PLACE".
RAISED = "raised"
HERE = str(Path(__file__).resolve().parent)
PACKAGE = os.path.realpath(".")
# What Python adds to "cannot import name 'x' from 'y'".
MODULE_FILE = re.compile(r" \(/[^()]*\)$")
# Folders of libraries, also when they are within the package.
LIBRARIES = frozenset({"site-packages", "dist-packages", ".venv", "venv"})
STANDARD = (sysconfig.get_path("stdlib"), "<")
# A recursion, or a group of many exceptions, must not fill the log.
HEAD_LINES, TAIL_LINES = 40, 60
SHOWN_LIBRARY_FRAMES = 3
# The file for the traceback of a set-up that failed.
FILE_NAME = "CALLME_TRACEBACK"
# In most cases enough for coglet to pass on what the set-up has printed.
LAST_PRINTS_S = 0.1
MESSAGE_CHARS = 300
# An exception may quote a secret input. The values of the last predictions are not printed.
SECRETS: deque[str] = deque(maxlen=100)
REDACTED = "**********"  # as in `router.secret_inputs`


# ---- what is shown -----------------------------------------------------------------------


def own_name(file_name: str) -> str | None:
    """Return the file's path within the package; None for a file of a library, and for code that is
    in no file."""
    if file_name.startswith("<"):
        return None
    path = os.path.realpath(os.path.join(PACKAGE, file_name))  # noqa: PTH118 - a string
    if not path.startswith(PACKAGE + os.sep):
        return None
    name = path[len(PACKAGE) + 1 :]
    return None if LIBRARIES.intersection(Path(name).parts) else name


def shown_name(file_name: str) -> str:
    """Return a short name of a file: within the package, or from its library's folder on."""
    if (own := own_name(file_name)) is not None:
        return own
    for folder in ("site-packages", "dist-packages"):
        _, found, name = file_name.rpartition(f"{os.sep}{folder}{os.sep}")
        if found:
            return name
    standard = STANDARD[0] + os.sep
    return file_name[len(standard) :] if file_name.startswith(standard) else file_name


def message_of(error: BaseException) -> str:
    """Return "Class: message" in one line, without the place that Python adds to a SyntaxError."""
    try:
        text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    except Exception:
        text = "(its text cannot be read)"
    if isinstance(error, ImportError):
        text = MODULE_FILE.sub("", text)
    first = text.strip().partition("\n")[0][:MESSAGE_CHARS]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def location_of(error: BaseException) -> str:
    """Return "run.py:12 in setup": where the package's own code raised it, or called the library
    that did. A syntax error is at "run.py:7:12", with the column. "" when no file of the package
    is involved.
    """
    if isinstance(error, SyntaxError) and error.filename:
        name = own_name(str(error.filename))
        if name is not None and error.lineno is not None:
            return f"{name}:{error.lineno}:{error.offset or 1}"
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = own_name(frame.f_code.co_filename)
        if name is not None:
            function = frame.f_code.co_name
            found = f"{name}:{line}" + ("" if function == "<module>" else f" in {function}")
    return found


def lines_of(error: BaseException, within: str = "", location: str = "") -> list[str]:
    """Return the traceback's lines, without line ends and without PREFIX. `location`: the line of
    the package that is meant, if none of its lines has raised; then no traceback is shown."""
    if location:
        return [f"{RAISED} at {location}{within}: {error}"]
    location = f" at {location}" if (location := location_of(error)) else ""
    lines = list(_all_lines(TracebackException.from_exception(error)))
    if len(lines) > HEAD_LINES + TAIL_LINES:
        left_out = len(lines) - HEAD_LINES - TAIL_LINES
        lines = [*lines[:HEAD_LINES], f"… {left_out} lines left out", *lines[-TAIL_LINES:]]
    return [f"{RAISED}{location}{within}: {message_of(error)}", *lines]


def _all_lines(shown: TracebackException) -> Iterator[str]:
    if shown.__cause__ is not None:
        yield from _all_lines(shown.__cause__)
        yield "The exception above was the direct cause of this one:"
    elif shown.__context__ is not None and not shown.__suppress_context__:
        yield from _all_lines(shown.__context__)
        yield "While that exception was handled, this one was raised:"
    frames = [f for f in shown.stack if not f.filename.startswith(HERE)]
    if issubclass(shown.exc_type, SyntaxError) and shown.filename:
        if not any(own_name(f.filename) for f in frames):
            frames = []  # the package's first file; its import says nothing
        shown.filename = shown_name(shown.filename)
    if frames:
        yield "Traceback (most recent call last):"
        yield from _frame_lines(frames)
    first, *more = "".join(shown.format_exception_only()).rstrip("\n").split("\n")
    yield first
    yield from more
    for part in (getattr(shown, "exceptions", None) or ())[:5]:
        yield from (f"  {line}" for line in _all_lines(part))


def _frame_lines(frames: list[FrameSummary]) -> Iterator[str]:
    """Return the package's frames in full, and a line for each row of calls within libraries."""
    own = [own_name(frame.filename) is not None for frame in frames]
    if not any(own):
        kept = frames[-SHOWN_LIBRARY_FRAMES:]
        own = [False] * (len(frames) - len(kept)) + [True] * len(kept)
    at = own.index(True)  # what comes before only leads to the package
    while at < len(frames):
        end = at
        while end < len(frames) and own[end] is own[at]:
            end += 1
        row = frames[at:end]
        if own[at]:
            yield from _full(row)
        else:
            last = row[-1]
            calls = f"{len(row)} call{'s' if len(row) > 1 else ''} in {_libraries(row)}"
            yield f"  … {calls}, the last at {shown_name(last.filename)}:{last.lineno}"
        at = end


def _full(frames: Iterable[FrameSummary]) -> Iterator[str]:
    kept = list(frames)
    for frame in kept:
        _ = frame.line  # read by the real name, before the name is made short
        frame.filename = shown_name(frame.filename)
    # As one stack: Python then shows a line that calls itself a thousand times only three times.
    for text in StackSummary.from_list(kept).format():
        yield from text.rstrip("\n").split("\n")


def _libraries(frames: Iterable[FrameSummary]) -> str:
    names = dict.fromkeys(_library(frame.filename) for frame in frames)
    return ", ".join(list(names)[:3]) + (", …" if len(names) > 3 else "")


def _library(file_name: str) -> str:
    if file_name.startswith(STANDARD):
        return "Python"
    return Path(shown_name(file_name)).parts[0].removesuffix(".py")


# ---- when it is shown --------------------------------------------------------------------


def report(error: BaseException, within: str = "", location: str = "") -> str:
    """Print the traceback on stderr, at once and in one piece. Return what was printed."""
    text = ""
    with contextlib.suppress(Exception):  # the exception itself matters more than its print
        text = "".join(f"{PREFIX}{line}\n" for line in lines_of(error, within, location))
        for secret in sorted(SECRETS, key=len, reverse=True):
            text = text.replace(secret, REDACTED)
        sys.stderr.flush()  # a line that has not ended, such as a progress bar
        sys.stderr.write(text)
        sys.stderr.flush()
    return text


def report_set_up(error: BaseException) -> None:
    """Report what ends the set-up, and with it the worker."""
    text = report(error)
    if path := os.environ.get(FILE_NAME):
        with contextlib.suppress(OSError):
            Path(path).write_text(text, encoding="utf-8")
    time.sleep(LAST_PRINTS_S)
