"""How many GPUs a load needs, how long callers wait, and what each way of serving it costs.

`make bench-scaling`. A simulation, no measurement: predictions arrive at random at rates that
change by the hour, each takes one GPU for about `seconds`, and boxes of one GPU die. One seed
gives one result. Writes one JSON line per load to bench/results/scaling.jsonl and prints the
tables of docs/scaling.md. ASSUMPTIONS and PRICES say where each figure comes from.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

RESULTS = Path(__file__).resolve().parent / "results" / "scaling.jsonl"
DAY_S = 86_400.0
HOUR_S = 3_600.0
DAYS_A_MONTH = 30
MOST_GPUS = 50

# Assumed: an office day with a peak of 3 times the mean. Mean 1 over the 24 hours.
BY_HOUR = (
    *(0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.4, 0.8, 1.4, 2.0, 2.3, 2.1),
    *(1.7, 2.0, 2.4, 3.0, 2.2, 1.2, 0.7, 0.4, 0.3, 0.2, 0.1, 0.1),
)
BUSIEST = BY_HOUR.index(max(BY_HOUR))


@dataclass(frozen=True)
class Assumptions:
    """All times in seconds. Measured: on this project's 2-core machine, without a GPU."""

    spread: float = 0.216  # sigma of the logarithm: bench/results/grounding.jsonl, p95 125.4 ms
    # over p50 87.9 ms with 2 labels, so ln(125.4 / 87.9) / 1.645
    load_s: float = 10.2  # fluency's load_s in bench/results/fluency.jsonl, 2026-11-23
    box_life_s: float = 30 * DAY_S  # assumed: a box dies once in 30 days on average
    repair_s: float = HOUR_S  # assumed: somebody has to come
    noticed_s: float = 3.2  # measured: Ray 2.60 sends a lost prediction to another replica
    modal_start_s: float = 7.2  # published for a 9B FLUX.2 from a GPU snapshot: docs/scaling.md
    replicate_start_s: float = 48.3  # the same without a snapshot
    idle_s: float = 300.0  # deploy/modal_app.py's SCALEDOWN_S; assumed for Replicate too
    most_rented: int = 200  # assumed: no account's limit is reached
    wait_s: float = 1.0  # the promise: in the busiest hour 95 of 100 wait no longer


ASSUMPTIONS = Assumptions()
# Dollars per hour of one H100: a survey of the vendors' pages, 7 May 2026 (docs/scaling.md).
PRICES = {"own": 2.86, "modal": 3.95, "replicate": 5.49}
LOADS = (
    *((1_000, 1.0), (10_000, 1.0), (100_000, 1.0)),
    *((1_000_000, 0.3), (1_000_000, 1.0), (1_000_000, 2.0)),
)


class Load(NamedTuple):
    """(arrival, seconds on a GPU) of every prediction, over whole days."""

    work: list[tuple[float, float]]
    days: int


def make_load(per_day: int, seconds: float, days: int, seed: int) -> Load:
    """Poisson arrivals, piecewise constant by the hour; log-normal times with mean `seconds`."""
    rng = random.Random(seed)  # noqa: S311
    spread = ASSUMPTIONS.spread
    middle = math.log(seconds) - spread**2 / 2
    work = []
    for hour in range(24 * days):
        rate = per_day / DAY_S * BY_HOUR[hour % 24]
        at = hour * HOUR_S + rng.expovariate(rate)
        while at < (hour + 1) * HOUR_S:
            work.append((at, rng.lognormvariate(middle, spread)))
            at += rng.expovariate(rate)
    return Load(work, days)


class Lost(NamedTuple):
    """The box died in the middle of the run; the prediction asks again at this time."""

    again_at: float


class Servers(Protocol):
    """What runs predictions, asked in the order of their arrival."""

    def run(self, now: float, seconds: float) -> float | Lost:
        """Take a prediction that asks at `now`; return when its run begins, or that it is lost."""


Outages = list[tuple[float, float]]  # (died, ready again), the next one last


def outages(rng: random.Random, until: float, at_peak: bool = False) -> Outages:
    """One box's deaths up to `until`; with `at_peak` it dies as each busiest hour begins."""
    away = ASSUMPTIONS.repair_s + ASSUMPTIONS.load_s
    died = [BUSIEST * HOUR_S + d * DAY_S for d in range(int(until / DAY_S))] if at_peak else []
    at = rng.expovariate(1 / ASSUMPTIONS.box_life_s)
    while at < until:
        died.append(at)
        at += away + rng.expovariate(1 / ASSUMPTIONS.box_life_s)
    return [(d, d + away) for d in sorted(died, reverse=True)]


class OneLine:
    """Boxes of one GPU behind one line, first come first served: one box, or a Ray cluster.
    Each prediction is given the GPU that is free first, which is the same as a line (Kiefer and
    Wolfowitz 1955), and takes one heap operation."""

    def __init__(self, boxes: Iterable[Outages], noticed_s: float = ASSUMPTIONS.noticed_s):
        self._outages = [list(b) for b in boxes]
        self._free = [(0.0, box) for box in range(len(self._outages))]
        self._noticed_s = noticed_s

    def ready_at(self, now: float) -> float:
        """When a prediction that asks at `now` would begin."""
        while True:
            free, box = self._free[0]
            begin, left = max(now, free), self._outages[box]
            if not left or left[-1][0] > begin:
                return begin
            heapq.heapreplace(self._free, (max(free, left.pop()[1]), box))

    def run(self, now: float, seconds: float) -> float | Lost:
        """Run on the GPU that is free first."""
        begin = self.ready_at(now)
        box = self._free[0][1]
        left = self._outages[box]
        if left and left[-1][0] < begin + seconds:
            died, ready = left.pop()
            heapq.heapreplace(self._free, (ready, box))
            return Lost(died + self._noticed_s)
        heapq.heapreplace(self._free, (begin + seconds, box))
        return begin


class OwnLines:
    """Boxes with a router each. A caller takes one at random, but none that it cannot reach; a
    router gives what would wait too long to the next box (`overflow_after_s`; None: never)."""

    def __init__(self, boxes: list[Outages], rng: random.Random, overflow_after_s: float | None):
        # What a dead box had goes on when it is back: its router has it on disk.
        away = ASSUMPTIONS.repair_s + ASSUMPTIONS.load_s
        self._boxes = [OneLine([b], noticed_s=away) for b in boxes]
        self._alive = list(range(len(boxes)))
        changes = [(t, box) for box, b in enumerate(boxes) for outage in b for t in outage]
        self._changes = sorted(changes, reverse=True)  # each box dies, is back, dies, ...
        self._rng = rng
        self._overflow_after_s = overflow_after_s

    def run(self, now: float, seconds: float) -> float | Lost:
        """Run on the caller's box, or on the next one."""
        alive = self._alive
        while self._changes and self._changes[-1][0] <= now:
            box = self._changes.pop()[1]
            (alive.remove if box in alive else alive.append)(box)
        if not alive:
            return Lost(self._changes[-1][0])  # nobody answers until one is back
        place = self._rng.randrange(len(alive))
        box = alive[place]
        if len(alive) > 1 and self._overflow_after_s is not None:
            other = alive[(place + 1) % len(alive)]
            wait = self._boxes[box].ready_at(now) - now
            if wait > self._overflow_after_s and self._boxes[other].ready_at(now) - now < wait:
                box = other
        return self._boxes[box].run(now, seconds)


class Rented:
    """Containers that start when a prediction finds none free, and end after `idle_s`.
    `billed_s` is the time of all containers from start to end, `worked_s` that of the runs."""

    def __init__(self, start_s: float, idle_s: float, most: int):
        self._start_s, self._idle_s, self._most = start_s, idle_s, most
        self._idle: deque[float] = deque()  # since when, the longest first
        self._busy: list[float] = []  # until when; a heap
        self._starting: deque[float] = deque()  # ready at
        self._waiting: deque[float] = deque()  # until when
        self.billed_s = self.worked_s = 0.0
        self.most_at_once = 0

    def run(self, now: float, seconds: float) -> float | Lost:
        """Run on the container that was used last, or on the next one to become free."""
        self.worked_s += seconds
        while self._busy and self._busy[0] <= now:
            self._idle.append(heapq.heappop(self._busy))
        while self._idle and self._idle[0] + self._idle_s <= now:
            self._idle.popleft()
            self.billed_s += self._idle_s
        for line in (self._starting, self._waiting):
            while line and line[0] <= now:
                line.popleft()
        if self._idle:
            self.billed_s += now - self._idle.pop() + seconds
            heapq.heappush(self._busy, now + seconds)
            return now
        # One more container for each one who waits and has none on its way.
        if len(self._starting) <= len(self._waiting) and len(self._busy) < self._most:
            heapq.heappush(self._busy, now + self._start_s)
            self._starting.append(now + self._start_s)
            self.billed_s += self._start_s
            self.most_at_once = max(self.most_at_once, len(self._busy))
        begin = self._busy[0]
        heapq.heapreplace(self._busy, begin + seconds)
        self._waiting.append(begin)
        self.billed_s += seconds
        return begin

    def end(self) -> None:
        """Bill what idles on after the last prediction."""
        self.billed_s += self._idle_s * (len(self._idle) + len(self._busy))
        self._idle.clear()
        self._busy.clear()


class OwnFirst:
    """Own boxes in one line; what would wait longer than `after_s` runs on rented ones."""

    def __init__(self, own: OneLine, rented: Rented, after_s: float):
        self._own, self._rented, self._after_s = own, rented, after_s

    def run(self, now: float, seconds: float) -> float | Lost:
        """Own ones first."""
        late = self._own.ready_at(now) - now > self._after_s
        return (self._rented if late else self._own).run(now, seconds)


def waits(load: Load, servers: Servers) -> tuple[list[float], int]:
    """Seconds from each arrival to the start of the run that ended, and how many ran again."""
    waited = [0.0] * len(load.work)
    again: list[tuple[float, int]] = []
    ran_again = 0

    def ask(now: float, number: int) -> None:
        nonlocal ran_again
        arrived, seconds = load.work[number]
        outcome = servers.run(now, seconds)
        if isinstance(outcome, Lost):
            ran_again += 1
            heapq.heappush(again, (outcome.again_at, number))
        else:
            waited[number] = outcome - arrived

    for number, (arrived, _) in enumerate(load.work):
        while again and again[0][0] <= arrived:
            ask(*heapq.heappop(again))
        ask(arrived, number)
    while again:
        ask(*heapq.heappop(again))
    return waited, ran_again


def percentile(values: list[float], of_100: float) -> float:
    """The smallest value that this many of 100 do not exceed."""
    return sorted(values)[max(math.ceil(len(values) * of_100 / 100) - 1, 0)]


def busiest(load: Load, waited: list[float]) -> list[float]:
    """The waits of those who arrived in the busiest hours."""
    return [
        w for w, (at, _) in zip(waited, load.work, strict=True) if at % DAY_S // HOUR_S == BUSIEST
    ]


def own_boxes(load: Load, count: int, seed: int, one_dies: bool = False) -> list[Outages]:
    """The deaths of `count` boxes, by chance; with `one_dies` the first also at each peak."""
    rng = random.Random(seed)  # noqa: S311
    return [outages(rng, load.days * DAY_S, at_peak=one_dies and box == 0) for box in range(count)]


def gpus_needed(load: Load, seed: int, one_dies: bool, low: int, high: int) -> int | None:
    """The fewest boxes in one line that keep the promise, of `low` to `high`; None: more."""

    # The hours around the busiest are enough: with `low` nobody waits long in the others.
    around = [w for w in load.work if abs(w[0] % DAY_S // HOUR_S - BUSIEST) <= 1]
    part = Load(around, load.days)

    def enough(count: int) -> bool:
        boxes = own_boxes(load, count, seed, one_dies)
        return p95_p99(part, OneLine(boxes))[0] <= ASSUMPTIONS.wait_s

    return next((count for count in range(low, high + 1) if enough(count)), None)


def p95_p99(load: Load, servers: Servers) -> list[float]:
    """Waits in the busiest hour, in seconds."""
    peak = busiest(load, waits(load, servers)[0])
    return [round(percentile(peak, p), 2) for p in (95, 99)]


def simulate(per_day: int, seconds: float, seed: int) -> dict[str, Any]:
    """One load, every way: a row of the results. Waits are p95 and p99 in the busiest hour;
    dollars are per month of 30 days."""
    a = ASSUMPTIONS
    load = make_load(per_day, seconds, max(1, min(30, 100_000 // per_day)), seed)

    def dollars(place: str, gpu_seconds: float) -> int:
        return round(gpu_seconds / load.days * DAYS_A_MONTH / HOUR_S * PRICES[place])

    def own_dollars(count: int) -> int:
        return dollars("own", count * load.days * DAY_S)

    row: dict[str, Any] = {"per_day": per_day, "seconds": seconds, "days": load.days, "seed": seed}
    rents: dict[str, Callable[[], Rented]] = {
        "modal": lambda: Rented(a.modal_start_s, a.idle_s, a.most_rented),
        "replicate": lambda: Rented(a.replicate_start_s, a.idle_s, a.most_rented),
    }
    for place, rent in rents.items():
        rented = rent()
        row[f"{place}_waits"] = p95_p99(load, rented)
        rented.end()
        row[f"{place}_most"] = rented.most_at_once
        row[f"{place}_dollars"] = dollars(place, rented.billed_s)
        if place == "replicate":
            row["public_dollars"] = dollars(place, rented.worked_s)
    # With fewer the line would grow through the whole busiest hour.
    fewest = math.ceil(per_day / DAY_S * max(BY_HOUR) * seconds)
    row["gpus"] = gpus_needed(load, seed, False, fewest, MOST_GPUS)
    count = row["gpus_one_dies"] = gpus_needed(
        load, seed, True, row["gpus"] or 1 + MOST_GPUS, MOST_GPUS
    )

    mixed: list[tuple[int, int, list[float]]] = []
    for own in sorted({max(1, round((count or MOST_GPUS) * part / 4)) for part in range(1, 4)}):
        rented = rents["modal"]()
        boxes = own_boxes(load, own, seed, one_dies=True)
        found = p95_p99(load, OwnFirst(OneLine(boxes), rented, a.wait_s))
        rented.end()
        mixed.append((own_dollars(own) + dollars("modal", rented.billed_s), own, found))
    row["mixed_dollars"], row["mixed_gpus"], row["mixed_waits"] = min(mixed)
    if count is None:
        return row

    boxes = own_boxes(load, count, seed, one_dies=True)
    waited, row["ran_again"] = waits(load, OneLine(boxes))
    row["own_waits"] = [round(percentile(busiest(load, waited), p), 2) for p in (95, 99)]
    row["own_dollars"] = own_dollars(count)
    row["own_used"] = round(per_day * seconds / count / DAY_S, 2)
    rng = random.Random(seed)  # noqa: S311
    row["routers_waits"] = p95_p99(load, OwnLines(boxes, rng, overflow_after_s=a.wait_s))
    row["apart_waits"] = p95_p99(load, OwnLines(boxes, rng, overflow_after_s=None))
    return row


def _waits(row: dict[str, Any], way: str) -> str:
    return " / ".join(f"{w:,.1f}" for w in row.get(f"{way}_waits", [])) or "–"


def _dollars(row: dict[str, Any], way: str) -> str:
    return f"{row[way + '_dollars']:,}" if f"{way}_dollars" in row else "–"


def tables(rows: list[dict[str, Any]]) -> str:
    """The two tables of docs/scaling.md, in Markdown."""
    head = "| predictions a day, seconds each |"
    over = f"over {MOST_GPUS}"
    lines = [
        f"{head} GPUs | if one dies | used | one line | own lines, overflow | own lines |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        used = f"{r['own_used']:.0%}" if "own_used" in r else "–"
        lines.append(
            f"| {r['per_day']:,}, {r['seconds']:g} s | {r['gpus'] or over} "
            f"| {r['gpus_one_dies'] or over} | {used} "
            f"| {_waits(r, 'own')} | {_waits(r, 'routers')} | {_waits(r, 'apart')} |"
        )
    lines += [
        "",
        f"{head} own | own + Modal (own GPUs) | Modal | Replicate, private | public "
        "| Modal's waits |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        lines.append(
            f"| {r['per_day']:,}, {r['seconds']:g} s | {_dollars(r, 'own')} "
            f"| {_dollars(r, 'mixed')} ({r['mixed_gpus']}) | {_dollars(r, 'modal')} "
            f"| {_dollars(r, 'replicate')} | {_dollars(r, 'public')} | {_waits(r, 'modal')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """All loads, to the results and to the screen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=20)
    rows = [simulate(per_day, seconds, parser.parse_args().seed) for per_day, seconds in LOADS]
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in rows))
    print(tables(rows))


if __name__ == "__main__":
    main()
