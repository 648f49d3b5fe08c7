"""What a Ray cluster adds to a prediction. `make bench-ray`, ROUNDS=12.

The echo model behind five servers, all at the same time: coglet alone, the router with a process of
its own, Ray Serve (one replica, one front), the router in front of that, and Ray Serve with
HAProxy. In each round every server gets the same requests, in an order that is turned by one each
round. Compared are the ratios within one round, as bench/paired.py does.

Prints a table and appends its lines to bench/results/ray_overhead.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from paired import commit_of, median_between, start_router
from peer_servers import BENCH_PYTHON, coglet, http_post

from router import CLIENTS, ECHO, MEGABYTE, Case, client, measure, measure_one
from tests.ray.cluster import application, ray_cluster, scaling

ROOT = Path(__file__).resolve().parents[1]
TEXT = b'{"input":{"text":"hello"}}'
URI = f"data:application/octet-stream;base64,{base64.b64encode(MEGABYTE).decode()}"
FILE = json.dumps({"input": {"file": URI}}).encode()
# Of one round.
ONE_BY_ONE, AT_ONCE, FILES = 40, 160, 7
FIGURES = ("json p50 ms", "json rps at 16", "1 MiB p50 ms")
COGLET, BOX, RAY = "coglet", "router, own process", "Ray Serve"
OVER_RAY, HAPROXY = "router over Ray Serve", "Ray Serve, HAProxy"
REMOTE = """
[models.echo]
backend = "cog"
[models.echo.remote]
url = "http://127.0.0.1:{}/models/echo"
concurrency = 2
"""


def serve_on_ray(folder: Path) -> None:
    """Be a cluster of one node that serves echo, until stdin ends. Prints the entry's port."""
    model = {
        "autoscaling_config": scaling(1, 1),
        "ray_actor_options": {"num_gpus": 1, "num_cpus": 0.5},
    }
    echo = application(folder / "echo", model=model)
    echo["deployments"][0]["num_replicas"] = 1
    with ray_cluster(1, folder) as cluster:
        cluster.deploy(echo)
        cluster.wait_running("echo")
        print(f"port {cluster.url.rpartition(':')[2]}", flush=True)
        sys.stdin.read()
        children = psutil.Process().children(recursive=True)
        proxies = [p for p in children if p.name() == "haproxy"]
    for proxy in proxies:  # it outlives the cluster
        with contextlib.suppress(psutil.Error):
            proxy.kill()


@contextlib.contextmanager
def on_ray(folder: Path, env: dict[str, str]) -> Iterator[int]:
    """The port of such a cluster, in a process of its own."""
    shutil.copytree(ECHO, folder / "echo", ignore=shutil.ignore_patterns(".cog"))
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, "--cluster", str(folder)],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            assert child.stdout is not None
            lines = (line.split() for line in child.stdout)
            port = next((int(line[1]) for line in lines if line[:1] == [b"port"]), 0)
            assert port, (folder / "log").read_text()[-3000:]
            yield port
        finally:
            child.communicate(timeout=180)


def round_of(name: str, port: int) -> tuple[float, ...]:
    """The FIGURES of one server, once."""
    path = "/predictions" if name == COGLET else "/models/echo/predictions"
    text, file = (
        Case(name, "json", port, http_post(path, "application/json", body)) for body in (TEXT, FILE)
    )
    p50_ms, _ = measure_one(text, ONE_BY_ONE)
    _, _, rps, _ = asyncio.run(measure(text, CLIENTS, AT_ONCE))
    latencies: list[float] = []
    asyncio.run(client(file, FILES, latencies, [0]))
    return p50_ms, rps, 1000 * statistics.median(latencies)


def main() -> None:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--cluster", type=Path, help="be a cluster in this folder; used by itself")
    arguments = parser.parse_args()
    if arguments.cluster:
        serve_on_ray(arguments.cluster)
        return
    samples: dict[str, list[tuple[float, ...]]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("ray", "haproxy", "box", "none"):
            (folder / name).mkdir()
        shutil.copytree(ECHO, folder / "box" / "echo", ignore=shutil.ignore_patterns(".cog"))
        ports = {BOX: start_router(stack, ROOT, folder / "box", folder / "state")[0]}
        ports[COGLET] = coglet(stack, folder / "box" / "echo")
        ports[RAY] = stack.enter_context(on_ray(folder / "ray", {}))
        (folder / "none" / "callme.toml").write_text(REMOTE.format(ports[RAY]))
        ports[OVER_RAY] = start_router(stack, ROOT, folder / "none", folder / "state2")[0]
        haproxy = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
        ports[HAPROXY] = stack.enter_context(on_ray(folder / "haproxy", haproxy))
        print("all servers answer", flush=True)
        names = [COGLET, BOX, RAY, OVER_RAY, HAPROXY]
        for number in range(arguments.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                samples.setdefault(name, []).append(round_of(name, ports[name]))
    report(samples)


def report(samples: dict[str, list[tuple[float, ...]]]) -> None:
    """The table, and a line for each server in bench/results."""
    rounds = len(samples[COGLET])
    print(f"{platform.machine()}, {os.cpu_count()} cores, {rounds} rounds, {CLIENTS} clients")
    rows = []
    for number, figure in enumerate(FIGURES):
        print(f"{figure:<26}median   x {COGLET:<26}x {BOX}")
        for name, of_rounds in samples.items():
            values = [one[number] for one in of_rounds]
            of_all = round(statistics.median(values), 2)
            row: dict[str, object] = {"server": name, "figure": figure, "median": of_all}
            line = f"  {name:<22}{of_all:>8}"
            for reference, key in ((COGLET, "to_coglet"), (BOX, "to_box")):
                firsts = [one[number] for one in samples[reference]]
                ratios = [ours / first for ours, first in zip(values, firsts, strict=True)]
                median, low, high = median_between(ratios)
                row[key] = [round(v, 3) for v in (median, low, high)]
                line += f"   {median:>7.2f} ({low:.2f} to {high:.2f})".ljust(30)
            print(line)
            rows.append(row)
    run = {
        "at": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU",
        "commit": commit_of(ROOT),
        "rounds": rounds,
    }
    with (ROOT / "bench" / "results" / "ray_overhead.jsonl").open("a") as out:
        out.writelines(json.dumps({**run, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    if not BENCH_PYTHON.exists():
        sys.exit("Cannot compare: make bench-ray makes .venv-bench first")
    main()
