"""The cost guard and the breaker."""

from __future__ import annotations

import pytest

from router.remote.guard import FAILURES_TO_OPEN, HOUR_S, SAME_MOMENT_S, Allowance, Breaker
from tests.router.fakes import HandClock


def is_open(breaker: Breaker) -> bool:
    """Read again at each call; a type checker assumes that an attribute is unchanged."""
    return breaker.is_open


def test_so_many_in_any_hour() -> None:
    """A sliding window: the place of the first is free an hour after it, not at the full hour."""
    clock = HandClock()
    allowance = Allowance(2, clock)
    assert allowance.take()
    clock.advance(1000)
    assert allowance.take()
    assert not allowance.take()
    assert allowance.wait_s() == pytest.approx(HOUR_S - 1000)
    clock.advance(HOUR_S - 1000)
    assert allowance.wait_s() == 0
    assert allowance.take()
    assert not allowance.take()
    assert allowance.spent() == 2


def test_what_was_refused_is_not_counted() -> None:
    """Or those who ask too often would never be let in again."""
    clock = HandClock()
    allowance = Allowance(1, clock)
    assert allowance.take()
    for _ in range(100):
        clock.advance(30)
        assert not allowance.take()
    clock.advance(HOUR_S - 3000)
    assert allowance.take()


def test_no_limit_and_none_at_all() -> None:
    """None means no limit; 0 means never."""
    clock = HandClock()
    free, shut = Allowance(None, clock), Allowance(0, clock)
    assert all(free.take() for _ in range(10_000))
    assert not shut.take()
    assert shut.wait_s() > 0


def fail(breaker: Breaker, clock: HandClock, times: int) -> None:
    """So many failures, each some time after the one before."""
    for _ in range(times):
        clock.advance(SAME_MOMENT_S)
        breaker.failed()


def test_a_breaker_opens_on_failures_in_a_row() -> None:
    """A success between them starts the count again."""
    clock = HandClock()
    breaker = Breaker(clock)
    fail(breaker, clock, FAILURES_TO_OPEN - 1)
    breaker.succeeded()
    fail(breaker, clock, FAILURES_TO_OPEN - 1)
    assert not is_open(breaker)
    fail(breaker, clock, 1)
    assert is_open(breaker)


def test_once_open_one_request_decides() -> None:
    """A failure leaves it open; a success closes it for good."""
    clock = HandClock()
    breaker = Breaker(clock)
    fail(breaker, clock, FAILURES_TO_OPEN + 1)
    assert is_open(breaker)
    breaker.succeeded()
    fail(breaker, clock, FAILURES_TO_OPEN - 1)
    assert not is_open(breaker)


def test_what_is_lost_together_counts_once() -> None:
    """Nine predictions were on their way through a server that ended: that is one failure."""
    clock = HandClock()
    breaker = Breaker(clock)
    for _ in range(FAILURES_TO_OPEN - 1):
        clock.advance(SAME_MOMENT_S)
        for _ in range(9):
            breaker.failed()
    assert not is_open(breaker)
