"""What a process printed before it failed, as its callers may be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from router.domain.errors import without_paths
from router.domain.prediction import Outcome
from router.ports import LogLine

# Of each line: a picture that was printed by mistake does not make an error of megabytes.
LINE_CHARS = 300


def last_words(lines: Sequence[LogLine], prediction_id: str = "") -> tuple[str, ...]:
    """The lines that concern everybody and this prediction, without paths of this machine.

    What was printed for another prediction may hold another person's words.
    """
    own = (line.text for line in lines if line.prediction_id in ("", prediction_id))
    return tuple(without_paths(text)[:LINE_CHARS] for text in own)


def with_last_words(outcome: Outcome, lines: Sequence[LogLine], prediction_id: str) -> Outcome:
    """The failed outcome with `log_tail` in its failure's details."""
    if outcome.failure is None:
        return outcome
    tail = list(last_words(lines, prediction_id))
    details = {**(outcome.failure.details or {}), "log_tail": tail}
    return replace(outcome, failure=replace(outcome.failure, details=details))
