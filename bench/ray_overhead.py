"""What a Ray cluster adds to a prediction. `make bench-ray`, ROUNDS=12.

The echo model behind six servers, all at the same time: coglet alone, the router with a process of
its own, Ray Serve (one replica, one front), the router in front of that, the same with
`remote.files_url`, and Ray Serve with HAProxy. In each round every server gets the same requests,
in an order that is turned by one each round. Compared are the ratios within one round, as
bench/paired.py does.

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
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from paired import commit_of, median_between, start_router
from peer_servers import BENCH_PYTHON, coglet, free_port, http_post

from router import CLIENTS, ECHO, MEGABYTE, Case, client, measure, measure_one
from tests.ray.cluster import application, ray_cluster, scaling

ROOT = Path(__file__).resolve().parents[1]
TEXT = b'{"input":{"text":"hello"}}'
URI = f"data:application/octet-stream;base64,{base64.b64encode(MEGABYTE).decode()}"
FILE = json.dumps({"input": {"file": URI}}).encode()
# Of one round.
ONE_BY_ONE, AT_ONCE, FILES = 40, 160, 7
# The last: processor time of all processes of the server for one file.
FIGURES = ("json p50 ms", "json rps at 16", "1 MiB p50 ms", "1 MiB CPU ms")
COGLET, BOX, RAY = "coglet", "router, own process", "Ray Serve"
OVER_RAY, HAPROXY = "router over Ray Serve", "Ray Serve, HAProxy"
BY_URL = "the same, files_url"
REMOTE = """
[models.echo]
backend = "cog"
[models.echo.remote]
url = "http://127.0.0.1:{}/models/echo"
concurrency = 2
"""
FILES_URL = "http://127.0.0.1:{}"


def serve_on_ray(folder: Path, files_url: str) -> None:
    """Be a cluster of one node that serves echo, until stdin ends. Prints the entry's port."""
    model = {
        "autoscaling_config": scaling(1, 1),
        "ray_actor_options": {"num_gpus": 1, "num_cpus": 0.5},
    }
    echo = application(folder / "echo", model=model, files_url=files_url)
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
def on_ray(folder: Path, env: dict[str, str], files_url: str = "") -> Iterator[tuple[int, int]]:
    """Port and pid of such a cluster, in a process of its own."""
    shutil.copytree(ECHO, folder / "echo", ignore=shutil.ignore_patterns(".cog"))
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, "--cluster", str(folder), "--files-url", files_url],
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
            yield port, child.pid
        finally:
            child.communicate(timeout=180)


def processor_s(pids: Iterable[int]) -> float:
    """Processor time so far of these processes and all below them."""
    total_s = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total_s += times.user + times.system
    return total_s


def round_of(name: str, port: int, pids: Iterable[int]) -> tuple[float, ...]:
    """The FIGURES of one server, once."""
    path = "/predictions" if name == COGLET else "/models/echo/predictions"
    text, file = (
        Case(name, "json", port, http_post(path, "application/json", body)) for body in (TEXT, FILE)
    )
    p50_ms, _ = measure_one(text, ONE_BY_ONE)
    _, _, rps, _ = asyncio.run(measure(text, CLIENTS, AT_ONCE))
    latencies: list[float] = []
    before_s = processor_s(pids)
    asyncio.run(client(file, FILES, latencies, [0]))
    each_ms = 1000 * (processor_s(pids) - before_s) / FILES
    return p50_ms, rps, 1000 * statistics.median(latencies), each_ms


def main() -> None:
    """Run, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--cluster", type=Path, help="be a cluster in this folder; used by itself")
    parser.add_argument("--files-url", default="", help="of the router; used by itself")
    arguments = parser.parse_args()
    if arguments.cluster:
        serve_on_ray(arguments.cluster, arguments.files_url)
        return
    samples: dict[str, list[tuple[float, ...]]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("ray", "haproxy", "box", "none", "by_url"):
            (folder / name).mkdir()
        shutil.copytree(ECHO, folder / "box" / "echo", ignore=shutil.ignore_patterns(".cog"))
        box, box_pid, _ = start_router(stack, ROOT, folder / "box", folder / "state")
        before = set(psutil.Process().children())
        alone = coglet(stack, folder / "box" / "echo")
        (coglet_process,) = set(psutil.Process().children()) - before
        by_url = free_port()
        files_url = FILES_URL.format(by_url)
        ray, ray_pid = stack.enter_context(on_ray(folder / "ray", {}, files_url))
        remote = REMOTE.format(ray)
        (folder / "none" / "callme.toml").write_text(remote)
        over, over_pid, _ = start_router(stack, ROOT, folder / "none", folder / "state2")
        (folder / "by_url" / "callme.toml").write_text(f'{remote}files_url = "{files_url}"\n')
        by_url_pid = start_router(stack, ROOT, folder / "by_url", folder / "state3", by_url)[1]
        haproxy = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
        proxy, proxy_pid = stack.enter_context(on_ray(folder / "haproxy", haproxy))
        print("all servers answer", flush=True)
        servers = {
            COGLET: (alone, [coglet_process.pid]),
            BOX: (box, [box_pid]),
            RAY: (ray, [ray_pid]),
            OVER_RAY: (over, [over_pid, ray_pid]),
            BY_URL: (by_url, [by_url_pid, ray_pid]),
            HAPROXY: (proxy, [proxy_pid]),
        }
        names = list(servers)
        for number in range(arguments.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                samples.setdefault(name, []).append(round_of(name, *servers[name]))
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
