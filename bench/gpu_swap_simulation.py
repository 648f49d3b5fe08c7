"""How long do requests wait when three models share one card: asleep, suspended by the driver,
restarted, or least recently used first?

A simulated day with random arrivals (Poisson), for the router's own scheduler with and without
sleep, and for llama-swap's: requests in their order, and a model that is not loaded replaces the
least recently used one, which is the one that is loaded where only one fits. The costs are in each
row. They were measured on an H200 with a model of 14 GB whose weights were in memory
(gpu_swap.jsonl); the driver's by a script on the same card; the time of a run is assumed. On the
larger card one model fits beside what two sleepers hold, on the smaller one it does not.

    python bench/gpu_swap_simulation.py [--hours 24]
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections import deque
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # else bench/router.py would be found in place of the router

from router.scheduling import messages as msg  # noqa: E402
from router.scheduling.scheduler import Policy, Scheduler  # noqa: E402

OUT = Path(__file__).parent / "results" / "gpu_swap_simulation.jsonl"
MODELS = ("a", "b", "c")
CARDS_GB = (20, 18)
NEED_GB, RESIDUE_GB = 17, 1
LOAD_S, STOP_S, WAKE_S, SLEEP_S, RUN_S = 7.5, 0.3, 0.29, 0.055, 2.0
SUSPEND_S, RESUME_S = 0.45, 0.29  # by the driver, of what a sleep leaves
# Rule: whether models sleep, and whether the driver suspends them.
RULES = {"suspend": (True, True), "sleep": (True, False), "restart": (False, False)}
GAPS_S = (60.0, 120.0, 300.0)


def arrivals(gap_s: float, hours: float) -> list[tuple[float, str]]:
    """Each model's requests, `gap_s` seconds apart on average."""
    r = Random(1)  # noqa: S311 - the same day every time
    found = []
    for model in MODELS:
        at = 0.0
        while (at := at + r.expovariate(1 / gap_s)) < hours * 3600:
            found.append((at, model))
    return sorted(found)


class Card:
    """The scheduler with processes that take these times."""

    def __init__(
        self, requests: list[tuple[float, str]], card_gb: int, *, can_sleep: bool, can_suspend: bool
    ) -> None:
        self.levels = (can_sleep, can_suspend)
        self.suspended: set[str] = set()
        self.waits: list[float] = []
        self.swaps = 0
        self.since: dict[str, float] = {}
        self.due: list[tuple[float, int, msg.Event]] = []
        self.numbers = 0
        self.now = 0.0
        self.scheduler = Scheduler(dict.fromkeys(MODELS, 1), card_gb, Policy(queue_limit=10_000))
        self.scheduler.handle(msg.Measured(card_gb, dict.fromkeys(MODELS, NEED_GB)), 0.0)
        for number, (at, model) in enumerate(requests):
            self.since[str(number)] = at
            self.later(at, msg.Submitted(str(number), model))

    def later(self, at: float, event: msg.Event) -> None:
        """It will happen then."""
        self.numbers += 1
        heapq.heappush(self.due, (at, self.numbers, event))

    def run(self) -> None:
        """Until every request has run."""
        left = len(self.since)
        while len(self.waits) < left:
            wake = self.scheduler.next_wakeup(self.now)
            event: msg.Event = msg.Tick()
            if self.due and (wake is None or self.due[0][0] <= wake):
                self.now, _, event = heapq.heappop(self.due)
            else:
                assert wake is not None, "nothing would ever happen"
                self.now = wake
            for effect in self.scheduler.handle(event, self.now):
                self.perform(effect)

    def perform(self, e: msg.Effect) -> None:
        """Report what the effect leads to, when it has led to it."""
        now = self.now
        match e:
            case msg.Start():
                self.swaps += 1
                ready = msg.Ready(e.model, e.generation, LOAD_S, NEED_GB, *self.levels)
                self.suspended.discard(e.model)
                self.later(now + LOAD_S, ready)
            case msg.Stop():
                self.later(now + STOP_S, msg.Stopped(e.model, e.generation))
            case msg.Stage():
                freed = NEED_GB - RESIDUE_GB
                self.later(now + WAKE_S, msg.Staged(e.model, e.generation, freed, freed))
            case msg.Sleep():
                freed, moved = NEED_GB - RESIDUE_GB, RESIDUE_GB if e.driver else 0
                took = SLEEP_S * e.hook + SUSPEND_S * e.driver
                slept = msg.Slept(
                    *(e.model, e.generation, RESIDUE_GB - moved, freed, freed, took, moved)
                )
                if moved:
                    self.suspended.add(e.model)
                self.later(now + took, slept)
            case msg.Wake():
                self.swaps += 1
                took = WAKE_S + RESUME_S * (e.model in self.suspended)
                self.suspended.discard(e.model)
                self.later(now + took, msg.Woke(e.model, e.generation, took, NEED_GB))
            case msg.Run():
                self.waits.append(now - self.since[e.id])
                self.later(now + RUN_S, msg.Finished(e.id, e.model, e.generation, RUN_S))
            case _:
                raise AssertionError(f"not in this simulation: {e}")


def in_order(requests: list[tuple[float, str]]) -> tuple[list[float], int]:
    """The waits and swaps where requests are served in their order. One model fits at a time, so
    the least recently used one is the one that is loaded."""
    waits, swaps, loaded, free_at = list[float](), 0, "", 0.0
    waiting = deque(requests)
    while waiting:
        at, model = waiting.popleft()
        begin = max(at, free_at)
        if model != loaded:
            begin += LOAD_S + (STOP_S if loaded else 0.0)
            swaps, loaded = swaps + 1, model
        waits.append(begin - at)
        free_at = begin + RUN_S
    return waits, swaps


def row(
    rule: str, card_gb: int, day: tuple[float, float], waits: list[float], swaps: int
) -> dict[str, object]:
    """What is kept of one day: `gap_s` and its hours."""
    gap_s, hours = day
    ordered = sorted(waits)
    return {
        "rule": rule,
        "gap_s": gap_s,
        "hours": hours,
        "requests": len(waits),
        "wait_s_p50": round(ordered[len(ordered) // 2], 2),
        "wait_s_p99": round(ordered[int(len(ordered) * 0.99)], 2),
        "wait_s_max": round(ordered[-1], 2),
        "swaps_per_hour": round(swaps / hours, 1),
        "costs": {
            "load_s": LOAD_S,
            "stop_s": STOP_S,
            "wake_s": WAKE_S,
            "sleep_s": SLEEP_S,
            "run_s": RUN_S,
            "suspend_s": SUSPEND_S,
            "resume_s": RESUME_S,
            "card_gb": card_gb,
            "model_gb": NEED_GB,
            "residue_gb": RESIDUE_GB,
        },
    }


def main() -> None:
    """Print a table and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    rows = []
    for gap_s in GAPS_S:
        requests = arrivals(gap_s, hours)
        for card_gb in CARDS_GB:
            for rule, (can_sleep, can_suspend) in RULES.items():
                card = Card(requests, card_gb, can_sleep=can_sleep, can_suspend=can_suspend)
                card.run()
                rows.append(row(rule, card_gb, (gap_s, hours), card.waits, card.swaps))
        rows.append(row("in order", CARDS_GB[0], (gap_s, hours), *in_order(requests)))
    print("gap s  card GB  rule                  p50 s    p99 s    max s   swaps/h")
    for r in rows:
        costs: Any = r["costs"]
        print(
            f"{r['gap_s']:5.0f}  {costs['card_gb']:7}  {r['rule']:20} {r['wait_s_p50']:7.2f}  "
            f"{r['wait_s_p99']:7.2f}  {r['wait_s_max']:7.2f}  {r['swaps_per_hour']:7.1f}"
        )
    with OUT.open("w") as out:
        out.writelines(json.dumps(r) + "\n" for r in rows)


if __name__ == "__main__":
    main()
