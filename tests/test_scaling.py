"""bench/scaling.py agrees with queueing theory, and docs/scaling.md with bench/scaling.py."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    """The script; its folder is not on the path, since it has a router.py."""
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "bench" / "scaling.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["scaling"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def erlang_c_wait(servers: int, offered: float) -> float:
    """The mean wait in M/M/c with a mean service time of 1; `offered` in Erlang."""
    term = offered**servers / math.factorial(servers) * servers / (servers - offered)
    waits = term / (sum(offered**k / math.factorial(k) for k in range(servers)) + term)
    return waits / (servers - offered)


@pytest.mark.parametrize(("servers", "offered"), [(1, 0.7), (5, 4.0)])
def test_one_line_waits_as_erlang_says(scaling: ModuleType, servers: int, offered: float) -> None:
    """Exponential times, a steady rate, no deaths: the formula's mean wait within 5 %."""
    rng = random.Random(1)
    at, work = 0.0, []
    for _ in range(200_000):
        at += rng.expovariate(offered)
        work.append((at, rng.expovariate(1.0)))
    waited, ran_again = scaling.waits(scaling.Load(work, 1), scaling.OneLine([[]] * servers))
    assert ran_again == 0
    assert sum(waited) / len(waited) == pytest.approx(erlang_c_wait(servers, offered), rel=0.05)


def test_lines_of_their_own_are_mm1_each(scaling: ModuleType) -> None:
    """Without overflow, four boxes at 0.7 wait as one at 0.7; with it they wait less."""
    rng = random.Random(1)
    at, work = 0.0, []
    for _ in range(50_000):
        at += rng.expovariate(2.8)
        work.append((at, rng.expovariate(1.0)))

    def mean(overflow_after_s: float | None) -> float:
        lines = scaling.OwnLines([[]] * 4, random.Random(2), overflow_after_s)
        waited, _ = scaling.waits(scaling.Load(work, 1), lines)
        return math.fsum(waited) / len(waited)

    assert mean(None) == pytest.approx(erlang_c_wait(1, 0.7), rel=0.1)
    assert erlang_c_wait(4, 2.8) < mean(1.0) < erlang_c_wait(1, 0.7) / 2


def test_what_a_dead_box_had_runs_again(scaling: ModuleType) -> None:
    """On the other box of one line; on the same box, when it is back, where each has a router."""
    boxes = [[(5.0, 100.0)], []]  # the first dies at 5 s and is ready at 100 s
    load = scaling.Load([(0.0, 10.0), (1.0, 10.0), (50.0, 10.0), (51.0, 10.0)], 1)
    waited, ran_again = scaling.waits(load, scaling.OneLine(boxes, noticed_s=3.0))
    # The first is seen lost at 8 s, and waits until 11 s for the second one's GPU.
    assert waited == [11.0, 0.0, 0.0, 9.0]
    assert ran_again == 1

    alone = scaling.OwnLines([[(5.0, 100.0)]], random.Random(1), None)
    away = scaling.ASSUMPTIONS.repair_s + scaling.ASSUMPTIONS.load_s
    waited, ran_again = scaling.waits(scaling.Load([(0.0, 10.0)], 1), alone)
    assert waited == [5.0 + away]
    assert ran_again == 1


def test_rented_containers_start_idle_and_are_billed(scaling: ModuleType) -> None:
    """By hand: starts of 7 s, idle for 20 s, two at most."""
    rented = scaling.Rented(start_s=7.0, idle_s=20.0, most=2)
    load = scaling.Load([(0.0, 2.0), (1.0, 2.0), (2.5, 2.0), (15.0, 2.0), (100.0, 2.0)], 1)
    waited, _ = scaling.waits(load, rented)
    # Ready at 7 and 8; the third waits for the first to end at 9; the fourth finds one idle.
    assert waited == [7.0, 7.0, 6.5, 0.0, 7.0]
    rented.end()
    assert rented.most_at_once == 2
    assert rented.worked_s == 10.0
    # 0 to 11 and 15 to 17 on one or the other, then 20 s idle each, then 7 + 2 + 20.
    assert rented.billed_s == pytest.approx((30.0 - 1.0) + (37.0 - 0.0) + 29.0)


def test_a_load_comes_by_the_hour_and_again_with_its_seed(scaling: ModuleType) -> None:
    """The busiest hour has 3/24 of the day's predictions; times have their mean."""
    load = scaling.make_load(50_000, 2.0, 2, seed=7)
    assert load == scaling.make_load(50_000, 2.0, 2, seed=7)
    assert sum(scaling.BY_HOUR) == pytest.approx(24.0)
    assert len(load.work) == pytest.approx(100_000, rel=0.02)
    peak = scaling.busiest(load, [0.0] * len(load.work))
    assert len(peak) / len(load.work) == pytest.approx(3 / 24, rel=0.05)
    mean = sum(seconds for _, seconds in load.work) / len(load.work)
    assert mean == pytest.approx(2.0, rel=0.01)


def test_fewest_gpus_keep_the_promise(scaling: ModuleType) -> None:
    """One fewer does not; a box more survives that one dies as the busiest hour begins."""
    load = scaling.make_load(60_000, 1.0, 1, seed=3)
    few = scaling.gpus_needed(load, 3, False, 1, 50)
    assert few > 60_000 / 86_400 * 3  # what the busiest hour keeps busy
    assert scaling.gpus_needed(load, 3, True, few, 50) == few + 1
    assert scaling.gpus_needed(load, 3, False, 1, few - 1) is None
    one_fewer, enough = (
        scaling.p95_p99(load, scaling.OneLine(scaling.own_boxes(load, count, 3)))[0]
        for count in (few - 1, few)
    )
    assert enough <= scaling.ASSUMPTIONS.wait_s < one_fewer


def test_the_page_has_the_tables_of_the_last_run(scaling: ModuleType) -> None:
    """docs/scaling.md shows what bench/results/scaling.jsonl says."""
    rows = [json.loads(line) for line in scaling.RESULTS.read_text().splitlines()]
    assert [(r["per_day"], r["seconds"]) for r in rows] == list(scaling.LOADS)
    page = (ROOT / "docs" / "scaling.md").read_text()
    for table in scaling.tables(rows).split("\n\n"):
        assert table in page
    assert len(re.findall(r"[^\s|]*\w[^\s|]*", page)) <= 800
