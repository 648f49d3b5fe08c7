"""What other servers write into Retry-After."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from router.outbound.public_http import AT_MOST_S, seconds_of

HUGE = "9" * 20


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own time zone is five hours away."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("7", 7), (" 7 ", 7), ("0.1", 0.1), ("999999999999", AT_MOST_S)],
)
def test_seconds(value: str, seconds: float) -> None:
    """Whole ones, and the fractions that some send; never more than a day."""
    assert seconds_of(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "soon", "-1", "inf", "nan", "1e9", "0x7", "²", "７", "7 s"),
        *("9" * 400, "Fri, 99"),
        f"Fri, 01 Jan {HUGE} 00:00:00 GMT",
        f"Fri, 01 Jan 2027 {HUGE}:00:00 GMT",
        f"Fri, 01 Jan 2027 00:00:00 +{HUGE}",
    ],
)
def test_what_says_nothing(value: str | None) -> None:
    """Is as if it had not been there; nothing of it reaches a header of ours."""
    assert seconds_of(value) is None


@pytest.mark.parametrize("usegmt", [True, False])
def test_a_date(usegmt: bool) -> None:
    """From now; one that is over is now."""
    left_s = seconds_of(formatdate(time.time() + 60, usegmt=usegmt))
    assert left_s is not None
    assert 50 < left_s <= 60
    assert seconds_of(formatdate(0, usegmt=usegmt)) == 0
    assert seconds_of(formatdate(time.time() + 1e7, usegmt=usegmt)) == AT_MOST_S


@pytest.mark.parametrize(
    ("zone", "seconds"),
    [("GMT", 7200), ("-0000", 7200), ("", 7200), ("+0130", 1800), ("-0100", 10_800)],
)
@pytest.mark.usefixtures("far_from_utc")
def test_the_zone_of_a_date(zone: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a zone is in UTC, wherever this machine is."""
    monkeypatch.setattr(time, "time", lambda: 1_798_804_800.0)  # noon, 1 January 2027
    assert seconds_of(f"Fri, 01 Jan 2027 14:00:00 {zone}") == seconds
