"""What a process printed before it failed, as its callers may be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from router.domain.errors import without_paths
from router.domain.prediction import Outcome
from router.ports import LogLine

# Of each line: a picture that was printed by mistake does not make an error of megabytes.
LINE_CHARS = 300


def last_words(lines: Sequence[LogLine], prediction_id: str = "") -> tuple[str, ...]:
    """The lines of the set-up and of this prediction, without paths of this machine.

    What was printed for another prediction may hold another person's words; and a subprocess
    prints without saying for whom, so that counts only where nobody else can have been meant.
    """
    began = next((i for i, line in enumerate(lines) if line.prediction_id == prediction_id), None)
    since = lines[began:] if prediction_id and began is not None else ()
    alone = all(line.prediction_id in ("", prediction_id) for line in since)
    own = [line for line in lines if line.in_set_up]
    own += [x for x in since if x.prediction_id == prediction_id or (alone and not x.in_set_up)]
    return tuple(without_paths(line.text)[:LINE_CHARS] for line in own)


def with_last_words(outcome: Outcome, lines: Sequence[LogLine], prediction_id: str) -> Outcome:
    """The failed outcome with `log_tail` in its failure's details."""
    if outcome.failure is None:
        return outcome
    tail = list(last_words(lines, prediction_id))
    details = {**(outcome.failure.details or {}), "log_tail": tail}
    failure = dataclasses.replace(outcome.failure, details=details)
    return msgspec.structs.replace(outcome, failure=failure)
