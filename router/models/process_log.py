"""What one process prints. Each line is read once, here, and assigned to the set-up, to a
prediction, or to neither."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from router.errors import without_paths
from router.models.coglet_responses import (
    is_print_of_prediction,
    is_print_outside_runs,
    read_log_line,
)
from router.models.process_interface import LogLine, Report
from router.models.tracebacks import without_tracebacks
from router.prediction import LogText

SET_UP_LOG_CHARS = 16 << 10
# coglet is READY before it has read the last lines that the set-up printed. Its own set-up log
# never gets these lines. They come later and belong to no prediction.
LATE_LINES_S = 1.0


class ProcessLog:
    """`reports`: by its id, where to report what a running prediction prints."""

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}
        self._lines_read = 0
        self._set_up_lines = math.inf
        self._set_up_log = ""
        self._late_log = ""
        self._late_until = math.inf

    def read_line(self, line: bytes) -> None:
        """Handle a line of coglet's log.

        coglet logs what a prediction prints at once. Its answer has these lines too, but only
        after the prediction's end.
        """
        self._lines_read += 1
        if time.monotonic() < self._late_until and is_print_outside_runs(line):
            if len(self._late_log) < SET_UP_LOG_CHARS:
                self._late_log += f"{read_log_line(line).text}\n"
        elif self.reports and is_print_of_prediction(line):
            printed = read_log_line(line)
            if report := self.reports.get(printed.prediction_id):
                report(LogText(f"{printed.text}\n", printed.source))

    def end_set_up(self, log: str) -> None:
        """The set-up has succeeded. `log`: what coglet says that it printed."""
        self._set_up_log = log
        self._set_up_lines = self._lines_read
        self._late_until = time.monotonic() + LATE_LINES_S

    @property
    def of_set_up(self) -> str:
        """The lines of the set-up, coglet's own and the model's, without paths."""
        log = without_tracebacks(self._set_up_log + self._late_log)
        return without_paths(log[-SET_UP_LOG_CHARS:])

    def told_apart(self, lines: Sequence[bytes]) -> Iterable[LogLine]:
        """Read the last lines that came. Each says whether it is of the set-up."""
        first = self._lines_read - len(lines)
        for number, line in enumerate(lines, first):
            read = read_log_line(line)
            # What a model writes at once, such as a traceback, is one line of coglet's.
            for text in read.text.split("\n"):
                yield replace(read, text=text, in_set_up=number < self._set_up_lines)
