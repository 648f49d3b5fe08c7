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
    waiting = _Waiting()
    heard_s = 0.0  # sound up to the newest piece
    base: float | None = None
    for start, length in pieces:
        waiting.push(None if start is None else start - heard_s, length)
        heard_s += length
        while waiting.sound_s > HORIZON_S:
            gap, base = _gap(waiting.pop(), base)
            yield gap
    while waiting:
        gap, base = _gap(waiting.pop(), base)
        yield gap


def _gap(late: float | None, base: float | None) -> tuple[float, float | None]:
    """The silence before a piece, and how late the stamps are from there on."""
    if late is None or base is None or late < base:
        return 0.0, late
    return (late - base, late) if late - base > MIN_GAP_S else (0.0, base)


class _Waiting:
    """The pieces of the next seconds, and the least late of them, at a constant time for each.

    That is a monotonic queue: of the pieces that wait it keeps those that no later one undercuts. A
    piece without a stamp ends what the pieces before it can know, so each stretch has its own.
    """

    def __init__(self) -> None:
        self.sound_s = 0.0
        self._pieces: deque[tuple[float | None, float]] = deque()  # (how late, length)
        self._least: deque[deque[float]] = deque([deque()])

    def __len__(self) -> int:
        return len(self._pieces)

    def push(self, late: float | None, length: float) -> None:
        self._pieces.append((late, length))
        self.sound_s += length
        if late is None:
            self._least.append(deque())
            return
        stretch = self._least[-1]
        while stretch and stretch[-1] > late:
            stretch.pop()
        stretch.append(late)

    def pop(self) -> float | None:
        """Remove the first piece; how late it and all behind it are at least, None if unknown."""
        late, length = self._pieces.popleft()
        self.sound_s -= length
        if late is None:
            self._least.popleft()
            return None
        least = self._least[0][0]
        if least == late:
            self._least[0].popleft()
        return least
