"""Which silence the time stamps of a recording stand for.

A browser stamps packets with the time at which it gets to them. Two things make a stamp later than
the samples before it: the sound is missing (packets of silence that were not sent, packets that
were lost, a paused recorder), or the browser was busy and the packets came late. In the second case
the stamps behind them catch up. So a gap is real only if the stamps of the next five seconds of
sound all keep it; everything else is jitter, and the samples follow each other without a gap.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

HORIZON_S: Final = 5.0
MIN_GAP_S: Final = 0.1


def gaps(pieces: Iterator[tuple[float | None, float]]) -> Iterator[float]:
    """The silence before each piece of sound, in s.

    pieces: (start, length) in s of each, in order of the file; start None: unknown, as behind a
    damaged packet, where the next stamp counts as right.
    """
    waiting: deque[tuple[float | None, float]] = deque()  # (how late, length) of each piece
    heard_s = 0.0  # sound up to the newest piece
    ahead_s = 0.0  # sound that waits
    base: float | None = None
    for start, length in pieces:
        waiting.append((None if start is None else start - heard_s, length))
        heard_s += length
        ahead_s += length
        while ahead_s > HORIZON_S:
            gap, base = _first(waiting, base)
            ahead_s -= waiting.popleft()[1]
            yield gap
    while waiting:
        gap, base = _first(waiting, base)
        waiting.popleft()
        yield gap


def _first(
    waiting: deque[tuple[float | None, float]], base: float | None
) -> tuple[float, float | None]:
    """The silence before the first piece that waits, and how late the stamps are from there on."""
    if waiting[0][0] is None:
        return 0.0, None
    late = waiting[0][0]
    for other, _ in waiting:
        if other is None:
            break
        late = min(late, other)
    if base is None or late < base:
        return 0.0, late
    return (late - base, late) if late - base > MIN_GAP_S else (0.0, base)
