"""The table of status changes."""

from __future__ import annotations

import itertools

import pytest

from router.prediction import (
    TRANSITIONS,
    IllegalTransition,
    Outcome,
    Prediction,
    Status,
    advance,
    conclude,
)


@pytest.mark.parametrize(("start", "to"), list(itertools.product(Status, Status)))
def test_only_the_tables_moves_are_made(start: Status, to: Status) -> None:
    """A move in the table is made; any other raises and changes nothing."""
    p = Prediction("id", "m", {}, 1.0, status=start)
    if to in TRANSITIONS[start]:
        assert advance(p, to, 2.0).status is to
    else:
        with pytest.raises(IllegalTransition):
            advance(p, to, 2.0)
    assert p.status is start


def test_times_and_attempts() -> None:
    """Each move stamps its own time; only a start of processing is an attempt."""
    p = advance(Prediction("id", "m", {}, 1.0), Status.PROCESSING, 2.0)
    assert (p.started_at, p.completed_at, p.attempts) == (2.0, None, 1)
    p = advance(advance(p, Status.STARTING, 3.0), Status.PROCESSING, 4.0)
    assert (p.started_at, p.attempts) == (4.0, 2)
    done = conclude(p, Outcome(Status.SUCCEEDED, output=1, predict_time_s=0.5), 5.0)
    assert (done.completed_at, done.metrics) == (5.0, {"predict_time": 0.5, "total_time": 4.0})
    assert done.status.is_terminal


def test_what_has_ended_does_not_end_again() -> None:
    """A second outcome raises, and the first one stands."""
    done = conclude(Prediction("id", "m", {}, 1.0), Outcome(Status.CANCELED), 2.0)
    with pytest.raises(IllegalTransition):
        conclude(done, Outcome(Status.FAILED), 3.0)
    assert (done.status, done.completed_at) == (Status.CANCELED, 2.0)


def test_terminal_is_what_has_no_way_on() -> None:
    """The property and the table say the same of every status."""
    assert {s for s in Status if s.is_terminal} == {s for s in Status if not TRANSITIONS[s]}
