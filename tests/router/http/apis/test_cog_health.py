"""A model's health check shows when its set-up was, and the same times at each look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.http.apis.cog_health import health_view
from router.models.catalog import Package
from router.scheduling import messages as msg
from router.scheduling.scheduler import Scheduler
from router.scheduling.tunables import Policy

PACKAGE = Package("echo", Path("packages/echo"), "", Path("python"))
EPOCH = 1_790_000_000.0  # 2026-09-21T14:13:20Z


def started(at: float) -> Scheduler:
    """A scheduler whose one model began its set-up at `at`."""
    scheduler = Scheduler({"echo": 1}, 2000, Policy(default_footprint_bytes=1024))
    scheduler.handle(msg.Submitted("p0", "echo", "", 1), at)
    return scheduler


def setup_at(scheduler: Scheduler, now: float) -> dict[str, Any]:
    """What the health check says of the set-up at `now`."""
    model = scheduler.snapshot(now).models["echo"]
    setup: dict[str, Any] = health_view(model, "", PACKAGE, lambda t: EPOCH + t)["setup"]
    return setup


ENDS: dict[str, msg.Ready | msg.StartFailed] = {
    "succeeded": msg.Ready("echo", 1, load_s=3.0, footprint_bytes=1024),
    "failed": msg.StartFailed("echo", 1, "its set-up failed: no such file"),
}


@pytest.mark.parametrize("status", ENDS)
def test_when_the_set_up_was(status: str) -> None:
    """From 10 s to 13.25 s, however often and whenever somebody looks, to the last millisecond."""
    scheduler = started(10.0)
    for now in (10.0, 11.0003, 12.9996):
        assert setup_at(scheduler, now) == {
            "started_at": "2026-09-21T14:13:30.000+00:00",
            "status": "starting",
        }
    scheduler.handle(ENDS[status], 13.25)
    for look in range(200):
        setup = setup_at(scheduler, 13.25 + look * 1.00037)
        assert setup["status"] == status
        assert setup["started_at"] == "2026-09-21T14:13:30.000+00:00"
        assert setup["completed_at"] == "2026-09-21T14:13:33.250+00:00"
