"""A model's state in the format of Cog's health check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from router.http.prediction_views import timestamp
from router.models.catalog import Package
from router.scheduling.snapshot import ModelSnapshot, Phase

COG_VERSIONS = {"coglet": version("coglet"), "cog": version("cog")}


def health_view(
    m: ModelSnapshot, set_up_log: str, package: Package, wall_time: Callable[[float], float]
) -> dict[str, Any]:
    """Return `status`, `setup` once there is one, and `version` where the router knows it.

    `wall_time` turns a time of the scheduler's clock into seconds since the epoch.
    """
    view: dict[str, Any] = {"status": _status(m)}
    if setup := _setup(m, set_up_log, wall_time):
        view["setup"] = setup
    if m.problem:
        view["user_healthcheck_error"] = m.problem
    if package.python == Path(sys.executable):
        view["version"] = {**COG_VERSIONS, "python": sys.version.partition(" ")[0]}
    return view


def _status(m: ModelSnapshot) -> str:
    match m.phase:
        case Phase.STARTING:
            return "STARTING"
        case Phase.READY if m.problem:
            return "UNHEALTHY"
        case Phase.STOPPING | Phase.STOPPED | Phase.FAILED if m.problem:
            # The first restart is tried at once. After a second failure it is given up.
            return "UNHEALTHY" if m.failures <= 1 else "DEFUNCT"
        case Phase.FAILED:
            return "DEFUNCT" if m.crashed else "SETUP_FAILED"
        case Phase.READY if len(m.running) >= m.concurrency:
            return "BUSY"
        case _:
            # A model that is not loaded is READY too. A client that waits for READY before its
            # first prediction would otherwise wait indefinitely.
            return "READY"


def _setup(
    m: ModelSnapshot, set_up_log: str, wall_time: Callable[[float], float]
) -> dict[str, Any] | None:
    began = {"started_at": timestamp(wall_time(m.set_up_since))}
    both = {**began, "completed_at": timestamp(wall_time(m.set_up_until))}
    match m.phase:
        case Phase.STARTING:
            return {**began, "status": "starting"}
        case Phase.READY | Phase.FALLING_ASLEEP | Phase.ASLEEP | Phase.WAKING:
            return {**both, "status": "succeeded", "logs": set_up_log}
        case Phase.FAILED if not m.crashed:
            logs = "\n".join([*m.log_tail, m.failure_reason])
            return {**both, "status": "failed", "logs": logs}
        case _:
            return None
