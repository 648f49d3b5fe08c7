"""Is this checkout of the router slower than an earlier one? `make bench-paired BEFORE=DIR`.

Every checkout serves the echo model, and the plain proxy stands beside them, all at the same time.
In each round every server gets the same requests, in an order that is turned by one each round, so
that what else the machine does meets all of them alike. What is compared are the ratios within one
round: their median, and between which values that median lies with 95 % certainty (order
statistics of the binomial distribution, no assumption about the noise). All servers are started
afresh several times: where a process's memory lies is luck, and moves its figures by up to 3 %.

Prints a line for each checkout, of each figure: its median, and its ratio to the first checkout.
Appends them to bench/results/paired.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peer_servers import (
    BENCH_PYTHON,
    ROUTER_PYTHON,
    coglet,
    form,
    free_port,
    http_post,
    rss_mib,
    running,
    wait_for,
)

from router import CLIENTS, ECHO, MEGABYTE, Case, measure, measure_one

ROOT = Path(__file__).resolve().parents[1]
PROXY = "plain proxy"
TEXT = b'{"input":{"text":"hello"}}'
# Of one round, by figure. A round is short: noise that lasts longer than one meets all servers.
JSON_REQUESTS, JSON_AT_ONCE, UPLOADS = 150, 480, 20
FIGURES = ("json p50 ms", "json rps at 16", "json processor ms", "upload p50 ms")
LARGER_IS_BETTER = frozenset({"json rps at 16"})


def commit_of(checkout: Path) -> str:
    """The commit, with a `+` where files differ from it."""
    git = ["git", "-C", str(checkout)]
    name = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], check=True, capture_output=True, text=True
    )
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


def start_router(
    stack: contextlib.ExitStack, checkout: Path, packages: Path, state: Path, port: int = 0
) -> tuple[int, int, float]:
    """Port, pid, seconds from its start to its first answer."""
    port = port or free_port()
    env = {
        "CALLME_PACKAGES_DIR": str(packages),
        "CALLME_STATE_DIR": str(state),
        "PYTHONPATH": str(checkout),
    }
    argv = [str(ROUTER_PYTHON.parent / "uvicorn"), "api:app", "--no-access-log", "--port"]
    child = stack.enter_context(running([*argv, str(port)], checkout, env))
    seconds = wait_for(port, form("/echo", 'name="text"', b"hello"))
    return port, child.pid, seconds


def start_proxy(stack: contextlib.ExitStack, echo: Path) -> tuple[int, int]:
    """Port, pid."""
    port = free_port()
    argv = [str(BENCH_PYTHON), "-m", "uvicorn", "plain_proxy:app", "--no-access-log"]
    env = {"COGLET_URL": f"http://127.0.0.1:{coglet(stack, echo)}"}
    child = stack.enter_context(
        running([*argv, "--port", str(port)], ROOT / "bench" / "peers", env)
    )
    wait_for(port, http_post("/predictions", "application/json", TEXT))
    return port, child.pid


def processor_s(pid: int) -> float:
    """Processor time of all threads of `pid` so far: hardly depends on what else runs."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python lacks


def round_of(name: str, port: int, pid: int) -> dict[str, float]:
    """Every figure of one server, once. Processor time is the server's own, without coglet's."""
    path = "/predictions" if name == PROXY else "/models/echo/predictions"
    upload_path = "/upload" if name == PROXY else "/echo"
    text = Case(name, "json", port, http_post(path, "application/json", TEXT))
    upload = form(upload_path, 'name="file"; filename="a.bin"', MEGABYTE)
    before_s = processor_s(pid)
    p50_ms, _ = measure_one(text, JSON_REQUESTS)
    _, _, rps, _ = asyncio.run(measure(text, CLIENTS, JSON_AT_ONCE))
    each_ms = 1000 * (processor_s(pid) - before_s) / (JSON_REQUESTS + JSON_AT_ONCE)
    upload_ms, _ = measure_one(Case(name, "upload", port, upload), UPLOADS)
    return dict(zip(FIGURES, (p50_ms, rps, each_ms, upload_ms), strict=True))


def median_between(values: list[float]) -> tuple[float, float, float]:
    """The median, and the bounds within which the true one lies with at least 95 %."""
    ordered, n = sorted(values), len(values)
    below, outside = 0, 0.0
    while below < n // 2:
        outside += 2 * math.comb(n, below) / 2**n
        if outside > 0.05:
            break
        below += 1
    lowest = max(below - 1, 0)
    return statistics.median(ordered), ordered[lowest], ordered[n - 1 - lowest]


def measure_start(
    checkouts: list[Path],
    rounds: int,
    samples: dict[str, dict[str, list[float]]],
    about: dict[str, dict[str, float]],
) -> None:
    """Start every server, add these rounds to `samples`, end the servers."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports: dict[str, int] = {}
        pids: dict[str, int] = {}
        for number, checkout in enumerate(checkouts):
            packages = folder / f"packages{number}"
            shutil.copytree(ECHO, packages / "echo", ignore=shutil.ignore_patterns(".cog"))
            name = commit_of(checkout)
            with contextlib.ExitStack() as first:  # makes the schema
                start_router(first, checkout, packages, folder / f"state{number}")
            started = start_router(stack, checkout, packages, folder / f"state{number}")
            ports[name], pids[name], seconds = started
            about[name] = {"start_s": round(seconds, 2)}
        ports[PROXY], proxy_pid = start_proxy(stack, packages / "echo")
        names = list(ports)
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                pid = pids.get(name, proxy_pid)
                for figure, value in round_of(name, ports[name], pid).items():
                    samples.setdefault(figure, {}).setdefault(name, []).append(value)
        for name, pid in pids.items():
            about[name]["rss_mib"] = round(rss_mib(pid))


def main() -> None:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="+", type=Path, help="the first is the reference")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--starts", type=int, default=4, help="the rounds are spread over them")
    arguments = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {}
    about: dict[str, dict[str, float]] = {}
    starts = max(arguments.starts, 1)
    rounds = math.ceil(arguments.rounds / starts)
    for _ in range(starts):
        measure_start([*map(Path.resolve, arguments.checkouts)], rounds, samples, about)
    report(samples, about, rounds * starts, starts)


def report(
    samples: dict[str, dict[str, list[float]]],
    about: dict[str, dict[str, float]],
    rounds: int,
    starts: int,
) -> None:
    """The table, and a line for each server in bench/results."""
    reference = next(iter(about))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, {rounds} rounds in {starts} starts, against {reference}")
    rows = []
    for figure, by_name in samples.items():
        better = "larger is better" if figure in LARGER_IS_BETTER else "smaller is better"
        print(f"{figure} ({better})")
        for name, values in by_name.items():
            pairs = zip(values, by_name[reference], strict=True)
            median, low, high = median_between([ours / first for ours, first in pairs])
            print(
                f"  {name:<14}{statistics.median(values):>9.3f}"
                f"   {median:.3f} x ({low:.3f} to {high:.3f})"
            )
            ratio = {"ratio": round(median, 4), "low": round(low, 4), "high": round(high, 4)}
            value = round(statistics.median(values), 3)
            rows.append({"server": name, "figure": figure, "median": value, **ratio})
    for name, figures in about.items():
        print(f"{name}: start to first answer {figures['start_s']} s, {figures['rss_mib']} MiB")
    run = {
        "at": time.strftime("%Y-%m-%d"),
        "machine": f"{machine}, CPU",
        "rounds": rounds,
        "starts": starts,
        "reference": reference,
    }
    with (ROOT / "bench" / "results" / "paired.jsonl").open("a") as out:
        for row in rows:
            out.write(json.dumps({**run, **row}) + "\n")
        for name, figures in about.items():
            out.write(json.dumps({**run, "server": name, **figures}) + "\n")


if __name__ == "__main__":
    if not BENCH_PYTHON.exists():
        sys.exit("Cannot compare: make bench-paired makes .venv-bench first")
    main()
