"""The hours of `keep_loaded`."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from router.scheduling.weekly_schedule import parse_schedule

MONDAY = datetime(2026, 11, 23)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def changes(text: str) -> list[str]:
    """When it opens (+) and closes (-) in a week that begins on Monday."""
    schedule = parse_schedule(text)
    found = []
    before = schedule.is_open(MONDAY - timedelta(minutes=1))
    for minute in range(7 * 24 * 60):
        now = MONDAY + timedelta(minutes=minute)
        if (is_open := schedule.is_open(now)) is not before:
            found.append(f"{'+' if is_open else '-'}{DAYS[now.weekday()]} {now:%H:%M}")
            before = is_open
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sat 10:00-14:00", ["+Sat 10:00", "-Sat 14:00"]),
        ("sun 22:30-2:00", ["-Mon 02:00", "+Sun 22:30"]),
        ("Fri-Sat 20:00-24:00", ["+Fri 20:00", "-Sat 00:00", "+Sat 20:00", "-Sun 00:00"]),
        ("Sat-Mon 00:00-24:00", ["-Tue 00:00", "+Sat 00:00"]),
        ("Mon 08:00-12:00, Mon 11:00-13:00", ["+Mon 08:00", "-Mon 13:00"]),
        ("always", []),
        ("00:00-24:00", []),
    ],
)
def test_when_it_is_open(text: str, expected: list[str]) -> None:
    """To the minute: the first is in, the last is out."""
    assert changes(text) == expected
    assert parse_schedule(text).is_open(MONDAY.replace(hour=1)) == (
        not expected or expected[0].startswith("-")
    )


def test_every_day() -> None:
    """Without days."""
    assert changes("08:00-19:00") == [
        f"{sign}{day} {hour}" for day in DAYS for sign, hour in (("+", "08:00"), ("-", "19:00"))
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("", "Mon", "Mon-Fri", "never", "Mo 08:00-19:00", "Mon, Tue 08:00-09:00"),
        *("Mon-Fri 8-19", "Mon 08:00-08:00", "Mon 25:00-26:00", "Mon 08:60-09:00"),
        *("Mon 24:00-08:00", "Mon 08:00-24:01"),
    ],
)
def test_what_is_no_schedule(text: str) -> None:
    """The message shows the part that is wrong, and what is right."""
    with pytest.raises(ValueError, match="must be like 'Mon-Fri 08:00-19:00'"):
        parse_schedule(text)
