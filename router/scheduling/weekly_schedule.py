"""Hours of the week, as `keep_loaded` in callme.toml gives them: `Mon-Fri 08:00-19:00`.

The grammar: windows separated by commas. A window is days, a space and hours. Days are one day, a
range such as `Mon-Fri`, or left out for every day. Hours are `HH:MM-HH:MM`; if the second is before
the first, the window ends on the next day. `always` is all of the week.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

ALWAYS = "always"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
WEEK_MIN = 7 * DAY_MIN
WINDOW = re.compile(
    r"(?:([a-z]{3})(?:\s*-\s*([a-z]{3}))?\s+)?(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class WeeklySchedule:
    """Windows of the week. Each is its start, in minutes since Monday 00:00, and its length in
    minutes."""

    windows: tuple[tuple[int, int], ...]

    def is_open(self, local: datetime) -> bool:
        """Whether that time, as the clock on the wall shows it, is in one of the windows."""
        minute = local.weekday() * DAY_MIN + local.hour * 60 + local.minute
        return any((minute - start) % WEEK_MIN < length for start, length in self.windows)


def parse_schedule(text: str) -> WeeklySchedule:
    """Read a schedule. Raises ValueError, with a message for a person, when the text is not one.

    >>> parse_schedule("Sat 22:00-02:00").windows
    ((8520, 240),)
    """
    if text.strip().lower() == ALWAYS:
        return WeeklySchedule(((0, WEEK_MIN),))
    windows: list[tuple[int, int]] = []
    for part in text.lower().split(","):
        found = WINDOW.fullmatch(part.strip())
        if found is None:
            raise _wrong(part)
        first, last = found[1], found[2] or found[1]
        if any(day not in DAYS for day in (first, last) if day):
            raise _wrong(part)
        start, end = _minute(found[3], found[4], part), _minute(found[5], found[6], part)
        length = end - start if end > start else end - start + DAY_MIN
        if start in (DAY_MIN, end) or length > DAY_MIN:
            raise _wrong(part)
        windows += [(day * DAY_MIN + start, length) for day in _days(first, last)]
    return WeeklySchedule(tuple(windows))


def _days(first: str | None, last: str | None) -> list[int]:
    if first is None or last is None:
        return list(range(7))
    begin = DAYS.index(first)
    return [(begin + i) % 7 for i in range((DAYS.index(last) - begin) % 7 + 1)]


def _minute(hour: str, minute: str, part: str) -> int:
    """Minutes since midnight, up to 24:00."""
    total = int(hour) * 60 + int(minute)
    if int(minute) > 59 or total > DAY_MIN:
        raise _wrong(part)
    return total


def _wrong(part: str) -> ValueError:
    return ValueError(
        f"'{part.strip()}' must be like 'Mon-Fri 08:00-19:00', 'Sat 10:00-14:00' or 'always'"
    )
