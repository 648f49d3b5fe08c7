"""Tells which threads of a model's process are at work. Standard library only.

Nothing of the package or of coglet is changed for it: the stacks show it. coglet calls a set-up and
a run from Rust, so their threads have a stack that does not begin in Python's `threading`. When
nobody is at work, such threads have no frame of the package. A thread that Python has started is at
rest while it waits in one of the library's own waits.
"""

import sys
import threading
from pathlib import Path
from types import FrameType

# The worker hook, whose own threads do not count.
HOOK = str(Path(__file__).resolve().parent.parent)
# Python's library, as its code objects name it.
LIBRARY = str(Path(threading.__file__).parent)
# Where a thread waits for work: file below LIBRARY, function.
WAITS = frozenset(
    {
        ("threading.py", "wait"),
        ("threading.py", "_wait_for_tstate_lock"),
        ("threading.py", "join"),
        ("queue.py", "get"),
        ("selectors.py", "select"),
        ("concurrent/futures/thread.py", "_worker"),
        ("socket.py", "accept"),
        ("subprocess.py", "wait"),
        ("subprocess.py", "_wait"),
        ("subprocess.py", "_try_wait"),
        ("multiprocessing/connection.py", "wait"),
        ("multiprocessing/connection.py", "_recv"),
    }
)
# Where every thread that Python has started begins.
BEGIN = ("threading.py", "_bootstrap")
# Where coglet's own threads are at rest: the worker's main module, and its event loop.
MAIN = ("<string>", "<module>")
LOOP = ("asyncio/base_events.py", "run_forever")


def place(frame: FrameType) -> tuple[str, str]:
    """Return the file of a frame, below LIBRARY where it is there, and the function."""
    name = frame.f_code.co_filename
    if name.startswith(LIBRARY):
        name = name[len(LIBRARY) + 1 :]
    return name, frame.f_code.co_name


def stack(frame: FrameType) -> list[FrameType]:
    """Return all frames, the outermost first."""
    frames = []
    current: FrameType | None = frame
    while current is not None:
        frames.append(current)
        current = current.f_back
    return frames[::-1]


def work_of(frame: FrameType) -> str:
    """Return what a thread with this innermost frame works on, in words; "" when it is at rest."""
    frames = stack(frame)
    outer, inner = place(frames[0]), place(frame)
    if outer != BEGIN:
        if (len(frames) == 1 and outer == MAIN) or (outer == LOOP and inner in WAITS):
            return ""
        return "a prediction" if outer[0] == "concurrent/futures/_base.py" else _words(inner)
    own = next((f for f in frames if place(f)[0] != "threading.py"), frame)
    if own.f_code.co_filename.startswith(HOOK) or inner in WAITS:
        return ""
    return _words(inner)


def _words(at: tuple[str, str]) -> str:
    return f"{Path(at[0]).name}:{at[1]}"


def at_work() -> list[str]:
    """Return what the other threads of this process work on; empty when all are at rest."""
    me = threading.get_ident()
    return [
        work
        for ident, frame in sys._current_frames().items()
        if ident != me and (work := work_of(frame))
    ]
