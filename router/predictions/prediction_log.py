"""A prediction's log. Of what a model prints, the first 64 KiB and the last 1 MiB are kept.

Between the two parts is one line, the gap, that says how much was left out. Lines keep their
numbers: a follower that has read up to a line within the gap continues after the gap.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import chain

from router.prediction import LogText

# Bytes in UTF-8. The first lines show what was asked for, and the last lines how it ended.
HEAD_BYTES = 64 << 10
TAIL_BYTES = 1 << 20

# Only LF ends a line, as in coglet: a progress bar is one line with many CRs in it.
LINE = re.compile(r"[^\n]*\n|[^\n]+")
# The model's own process writes such a line too (`worker_hook`), when the limit is reached there
# first.
GAP = re.compile(r"^\[callme left out ([0-9]{1,15}) lines, ([0-9]{1,18}) bytes\]\n", re.MULTILINE)

NumberedLine = tuple[int, LogText]  # the line's number, counted from 1
Entry = tuple[str, str, int, int]


def gap_line(lines: int, size_bytes: int) -> str:
    """The line in place of that many lines and bytes."""
    return f"[callme left out {lines} lines, {size_bytes} bytes]\n"


class PredictionLog:
    """The log of a running prediction. It is falsy while it is empty."""

    def __init__(self) -> None:
        # Each line with its source, how many lines it counts for (a gap: many) and its bytes. These
        # are tuples, as a model may print 100,000 lines a second.
        self._head: list[Entry] = []
        self._head_bytes = 0
        self._tail: deque[Entry] = deque()
        self._tail_bytes = 0
        self._first = 0  # the number of lines before the tail
        self._count = 0  # the number of all lines, kept or not
        self._gap_bytes = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, text: LogText) -> None:
        """Add one or several lines."""
        whole, source = text.text, text.source
        if whole.find("\n") == len(whole) - 1:
            self._add_line(whole, source)
            return
        for line in LINE.findall(whole):
            self._add_line(line, source)

    @property
    def size_bytes(self) -> int:
        """The size of all lines that are kept."""
        return self._head_bytes + self._tail_bytes

    def end(self, limit_bytes: int) -> str:
        """The last lines, at most `limit_bytes`. If there are lines before them, a gap line comes
        first."""
        lines: deque[str] = deque()
        size, count = 0, self._count
        before_tail = () if self._gap_bytes else reversed(self._head)
        for line, _, span, line_bytes in chain(reversed(self._tail), before_tail):
            if size + line_bytes > limit_bytes:
                break
            lines.appendleft(line)
            size += line_bytes
            count -= span
        before = self.size_bytes + self._gap_bytes - size
        return (gap_line(count, before) if count else "") + "".join(lines)

    def text(self) -> str:
        """All kept lines, with the gap, as one text."""
        lines = [entry[0] for entry in self._head]
        if self._gap_bytes:
            lines.append(gap_line(self._first - len(lines), self._gap_bytes))
        lines += [entry[0] for entry in self._tail]
        return "".join(lines)

    def since(self, after_line: int) -> list[NumberedLine]:
        """The lines after line number `after_line`, each with its number."""
        found: list[NumberedLine] = []
        end = self._count
        for line, source, span, _ in reversed(self._tail):
            if end <= after_line:
                break
            found.append((end, LogText(line, source)))
            end -= span
        found.reverse()
        if after_line >= self._first:
            return found
        kept = len(self._head)
        head = self._head[after_line:]
        before = [(n, LogText(e[0], e[1])) for n, e in enumerate(head, after_line + 1)]
        if self._gap_bytes:
            gap = gap_line(self._first - max(after_line, kept), self._gap_bytes)
            before.append((self._first, LogText(gap)))
        return before + found

    def _add_line(self, line: str, source: str) -> None:
        size = len(line) if line.isascii() else len(line.encode(errors="replace"))
        if not self._tail and not self._gap_bytes and self._head_bytes + size <= HEAD_BYTES:
            self._head.append((line, source, 1, size))
            self._head_bytes += size
            self._count += 1
            self._first += 1
            return
        span = 1
        if line.startswith("[callme") and (gap := GAP.fullmatch(line)):
            span = max(int(gap[1]), 1)
        self._tail.append((line, source, span, size))
        self._tail_bytes += size
        self._count += span
        while self._tail_bytes > TAIL_BYTES:
            self._drop_first()

    def _drop_first(self) -> None:
        line, _, span, size = self._tail.popleft()
        self._tail_bytes -= size
        self._first += span
        gap = GAP.fullmatch(line) if line.startswith("[callme") else None
        self._gap_bytes += int(gap[2]) if gap else size


def bounded(text: str) -> str:
    """A complete log, cut to the same limits."""
    if len(text) <= (HEAD_BYTES + TAIL_BYTES) // 4:  # no character takes more than four bytes
        return text
    data = text.encode(errors="replace")
    head = data.rfind(b"\n", 0, HEAD_BYTES) + 1
    if len(data) - head <= TAIL_BYTES:
        return text
    start = data.find(b"\n", len(data) - TAIL_BYTES - 1) + 1 or len(data) - TAIL_BYTES
    left_out = data[head:start].decode(errors="replace")
    gaps = list(GAP.finditer(left_out)) if "[callme left out" in left_out else []
    lines = left_out.count("\n") + sum(int(gap[1]) - 1 for gap in gaps)
    size = start - head + sum(int(gap[2]) - len(gap[0]) for gap in gaps)
    tail = data[start:].decode(errors="replace")
    return data[:head].decode() + gap_line(max(lines, 1), size) + tail


def lines_since(text: str, after_line: int) -> list[NumberedLine]:
    """The lines after line number `after_line` of an ended prediction's log. Their numbers are the
    same as while it ran; their sources (stdout, stderr) are not known any more."""
    gap = GAP.search(text)
    if gap is None or gap.start() > HEAD_BYTES:
        lines = LINE.findall(text)
        return [(i, LogText(line)) for i, line in enumerate(lines[after_line:], after_line + 1)]
    head = LINE.findall(text[: gap.start()])
    found = [(i, LogText(line)) for i, line in enumerate(head[after_line:], after_line + 1)]
    first = len(head) + int(gap[1])
    if after_line < first:
        found.append((first, LogText(gap_line(first - max(after_line, len(head)), int(gap[2])))))
    tail = LINE.findall(text[gap.end() :])
    skipped = max(after_line - first, 0)
    found += [(i, LogText(line)) for i, line in enumerate(tail[skipped:], first + skipped + 1)]
    return found
