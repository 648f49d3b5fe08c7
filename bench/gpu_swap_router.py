"""Three models that do not fit on the card together, through the router: how long a request waits
for a model that is asleep, and for one that must be started again."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from bench.gpu_rows import ROOT, Report
from bench.gpu_swap_packages import Plan, make_plan, room_for, write_packages, write_weights
from bench.gpu_swap_service import Service, running

SWITCHES, RESTARTS = 24, 6
TINY_SWITCHES, TINY_RESTARTS = 6, 1
FEWEST = 3  # of each, however late it is
# From the start of this part: when no further switch, drill or restart is begun.
SWITCHES_UNTIL_S, DRILLS_UNTIL_S, RESTARTS_UNTIL_S = 85.0, 105.0, 135.0
STAGED_WITHIN_S = 40.0
AGAIN_WITHIN_S = 40.0  # a model answers again after this at the latest
HOLD_S = 4.0  # for which another program keeps the card full


@dataclass(frozen=True)
class Bench:
    """What all steps need. `began`: a moment of time.perf_counter."""

    report: Report
    plan: Plan
    is_tiny: bool
    began: float

    def has_until(self, seconds: float) -> bool:
        """Whether there is time; always, with tiny weights."""
        return self.is_tiny or time.perf_counter() - self.began < seconds


def run(report: Report, out: Path | None, *, is_tiny: bool) -> None:
    """Sleep first, then restarts, with the same models and requests."""
    has_card = torch.cuda.is_available()
    plan = make_plan(has_card=has_card, is_tiny=is_tiny)
    bench = Bench(report, plan, is_tiny, time.perf_counter())
    report(measure="plan", **plan.row())
    need = plan.shards * plan.bytes_of_shard
    log = (out.parent if out else Path(tempfile.gettempdir())) / "gpu_swap_router.log"
    with tempfile.TemporaryDirectory(dir=room_for(need)) as folder:
        home = Path(folder)
        packages = write_packages(home, plan)
        with ThreadPoolExecutor(1) as beside:
            began = time.perf_counter()
            writing = beside.submit(write_weights, home / "weights", plan)
            with running(packages, home / "state", plan.settings(can_sleep=True), log) as service:
                ready_s = service.wait_ready()
                writing.result()
                report(
                    measure="ready", router_s=ready_s, weights_s=time.perf_counter() - began,
                    weights_in=str(home.parent), bytes=need,
                )  # fmt: skip
                asleep_s, expected = sleeping(bench, service)
                report(measure="processes_left", of="sleep", count=service.stop())
        settings = plan.settings(can_sleep=False)
        with running(packages, home / "state2", settings, log) as service:
            service.wait_ready()
            restarting(bench, service, asleep_s, expected)
            report(measure="processes_left", of="restart", count=service.stop())


def sleeping(bench: Bench, service: Service) -> tuple[list[float], dict[str, str]]:
    """Load the models, let them take turns asleep, and make trouble. Return the switch times, and
    what each model answers."""
    report, names = bench.report, list(bench.plan.models)
    expected: dict[str, str] = {}
    for name in names:
        took, expected[name] = service.ask(name)
        report(measure="start", model=name, seconds=took, view=service.brief(name))
        staged_s = service.wait_staged(name, STAGED_WITHIN_S)
        report(measure="staged", model=name, seconds=staged_s, view=service.sleep_of(name))
    times, same = [], []
    for name in islice(cycle(names), TINY_SWITCHES if bench.is_tiny else SWITCHES):
        if len(times) >= FEWEST and not bench.has_until(SWITCHES_UNTIL_S):
            break
        took, answer = service.ask(name)
        times.append(took)
        same.append(answer == expected[name])
        view = service.model(name)
        bench.report(
            measure="switch", model=name, seconds=took, loads=view["loads"], same=same[-1],
            sleep_s=view["sleep"].get("sleep_s"), wake=view["sleep"].get("wake"),
        )  # fmt: skip
    report(
        measure="switches", way="sleep", identical=all(same), **spread(times),
        loads={name: service.model(name)["loads"] for name in names},
        views={name: service.sleep_of(name) for name in names},
    )  # fmt: skip
    for drill in (killed_in_wake, card_is_full):
        if not bench.has_until(DRILLS_UNTIL_S):
            report(measure=drill.__name__, skipped="out of time")
        elif name := a_sleeper(bench, service):
            drill(bench, service, name, expected)
        else:
            report(measure=drill.__name__, skipped="no model is asleep")
    return times, expected


def restarting(
    bench: Bench, service: Service, asleep_s: list[float], expected: dict[str, str]
) -> None:
    """The same requests, when models are stopped and started."""
    times: list[float] = []
    same: list[bool] = []
    first = True
    count = TINY_RESTARTS if bench.is_tiny else RESTARTS
    for name in islice(cycle(bench.plan.models), count + 1):
        if len(times) >= FEWEST and not bench.has_until(RESTARTS_UNTIL_S):
            break
        took, answer = service.ask(name)
        same.append(answer == expected[name])
        if first:  # nothing had to be stopped for it
            first = False
            continue
        times.append(took)
        bench.report(measure="restart", model=name, seconds=took)
    row = spread(times)
    row["times_slower_than_asleep"] = (
        statistics.median(times) / statistics.median(asleep_s) if asleep_s and times else None
    )
    bench.report(measure="switches", way="restart", identical=all(same), **row)


def spread(times: list[float]) -> dict[str, Any]:
    """Return the middle and the worst of these seconds."""
    if not times:
        return {"count": 0}
    worst = sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]
    return {
        "count": len(times),
        "p50_s": statistics.median(times),
        "p99_s": worst,
        "best_s": min(times),
        "worst_s": max(times),
    }


def a_sleeper(bench: Bench, service: Service) -> str:
    """Return the name of a model that is asleep, after a few requests if there is none yet; "" when
    there is none then."""
    for other in (None, *bench.plan.models):
        if other is not None:
            service.ask(other)
        for name in reversed(bench.plan.models):
            if service.model(name)["state"] == "asleep":
                return name
    return ""


def killed_in_wake(bench: Bench, service: Service, name: str, expected: dict[str, str]) -> None:
    """kill -9 of a worker while it copies its weights back. The request must be answered."""
    before = service.model(name)
    victim = service.worker(name)
    if not bench.plan.has_card:  # such a wake is too short to be met
        victim.suspend()
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(service.ask, name)
        waking = service.wait_state(name, "waking", within_s=20.0)
        if bench.plan.has_card:
            time.sleep((before["sleep"].get("wake_s") or 0.1) / 4)
        state = service.model(name)["state"]
        victim.kill()
        took, answer = asked.result()
    after = service.model(name)
    bench.report(
        measure="killed_in_wake", model=name, seen_waking=waking, state_at_kill=state,
        answered_s=took, same=answer == expected[name],
        restarted=after["loads"] == before["loads"] + 1, crashes=after["crashes"],
    )  # fmt: skip


def card_is_full(bench: Bench, service: Service, name: str, expected: dict[str, str]) -> None:
    """Another program takes the card's memory before a wake. The request waits, or its process is
    started again; it is never answered wrongly, and later all is as before."""
    before = service.model(name)
    argv = [sys.executable, str(ROOT / "bench" / "gpu_swap_hog.py")]
    hog = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert hog.stdin is not None
    assert hog.stdout is not None
    states: list[str] = []
    try:
        hog.stdout.readline()  # it has begun to use the card
        hog.stdin.write(f"{bench.plan.smallest_bytes // 2}\n")
        hog.stdin.flush()
        taken = int(hog.stdout.readline())
        with ThreadPoolExecutor(1) as beside:
            asked = beside.submit(service.try_ask, name)
            until = time.perf_counter() + HOLD_S
            while time.perf_counter() < until and not asked.done():
                if (state := service.model(name)["state"]) not in states[-1:]:
                    states.append(state)
                time.sleep(0.02)
            while_full = asked.done()
            hog.kill()
            hog.wait()
            code, took, answer = asked.result()
    finally:
        hog.kill()
        hog.wait()
    after = service.model(name)
    again, same = [], []
    for other in bench.plan.models:
        refused, seconds, text = service.ask_again(other, AGAIN_WITHIN_S)
        again.append({"model": other, "refused": refused, "seconds": seconds})
        same.append(text == expected[other])
    bench.report(
        measure="card_is_full", model=name, taken_bytes=taken, held_s=HOLD_S, states=states,
        answered_while_full=while_full, status=code, seconds=took,
        never_wrong=code != 200 or answer == expected[name],
        said="" if code == 200 else answer[:300],
        crashes=after["crashes"] - before["crashes"], loads=after["loads"] - before["loads"],
        afterwards=again, identical_afterwards=all(same),
    )  # fmt: skip
