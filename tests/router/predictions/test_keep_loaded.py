"""Which models are to stay loaded, by the clock on the wall."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from router.predictions.keep_loaded import KeepLoaded
from router.scheduling import messages as msg
from router.scheduling.weekly_schedule import parse_schedule
from tests.router.fakes import HandClock


def test_the_scheduler_is_told_when_something_changes() -> None:
    """At the hours of the wall in Berlin, in the week when summer time ends there; a package that
    cannot be read is not loaded until it can."""
    berlin = ZoneInfo("Europe/Berlin")
    clock = HandClock()
    readable = {"alpha"}
    told: list[tuple[str, msg.Event]] = []

    def local(now: float) -> datetime:
        return datetime.fromtimestamp(now, berlin)

    def post(event: msg.Event) -> None:
        told.append((f"{local(clock.now):%a %d %H:%M}", event))

    schedules = {
        "alpha": parse_schedule("Sat-Mon 08:00-19:00"),
        "beta": parse_schedule("always"),
    }
    keeper = KeepLoaded(schedules, clock, post, may_load=lambda name: name in readable, local=local)
    clock.now = datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp()  # a Saturday, 14:00 in Berlin
    for minute in range(2 * 24 * 60):
        if minute == 60:
            readable.add("beta")
        keeper.look()
        clock.now += 60.0
    assert told == [
        ("Sat 24 14:00", msg.Keep("alpha", True)),
        ("Sat 24 15:00", msg.Keep("beta", True)),
        ("Sat 24 19:00", msg.Keep("alpha", False)),
        ("Sun 25 08:00", msg.Keep("alpha", True)),
        ("Sun 25 19:00", msg.Keep("alpha", False)),
        ("Mon 26 08:00", msg.Keep("alpha", True)),
    ]
