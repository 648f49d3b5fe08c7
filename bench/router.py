"""How much the router costs: an echo model behind coglet alone, a plain proxy, LitServe, and us.

`make bench-router`. One client program (raw sockets, keep-alive), one run, so that ratios mean
something; each case is measured ROUNDS times in turn and the median of rounds is reported.
Prints a table and appends one JSON line per case to bench/results/router.jsonl.
"""

from __future__ import annotations

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
from dataclasses import asdict, dataclass
from pathlib import Path

from peer_servers import (
    BENCH_PYTHON,
    ROUTER_PYTHON,
    Client,
    coglet,
    form,
    free_port,
    http_post,
    rss_mib,
    running,
    wait_for,
)

ROOT = Path(__file__).resolve().parents[1]
ECHO = ROOT / "tests" / "packages" / "echo"
ROUNDS = 3
JSON_REQUESTS = 600
UPLOAD_REQUESTS = 100
CLIENTS = 16
MEGABYTE = os.urandom(1 << 20)


@dataclass(frozen=True)
class Case:
    """One peer and one request to it."""

    peer: str
    kind: str  # json, form or upload
    port: int
    request: bytes


@dataclass(frozen=True)
class Row:
    """Medians over the rounds. Milliseconds and requests per second."""

    peer: str
    kind: str
    p50_ms: float
    p99_ms: float
    rps_16: float
    p99_16_ms: float
    retries_16: int


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    """One request and its answer: status and body."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return int(head[9:12]), await reader.readexactly(length)


async def client(case: Case, count: int, latencies: list[float], retries: list[int]) -> None:
    """`count` successful requests, one after the other; a 409 is tried again, and counted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", case.port, limit=1 << 24)
    for _ in range(count):
        began = time.perf_counter()
        while True:
            status, body = await exchange(reader, writer, case.request)
            if status != 409:
                break
            retries[0] += 1
            await asyncio.sleep(0.001)
        assert status == 200, (case, status, body[:300])
        latencies.append(time.perf_counter() - began)
    writer.close()


def measure_one(case: Case, count: int) -> tuple[float, float]:
    """p50 and p99 in ms of one client; a 409 is tried again."""
    latencies = []
    client = Client(case.port)
    for _ in range(20 + count):
        began = time.perf_counter()
        while (answer := client.exchange(case.request))[0] == 409:
            time.sleep(0.001)
        assert answer[0] == 200, (case, answer[0], answer[1][:300])
        latencies.append(time.perf_counter() - began)
    client.close()
    cuts = statistics.quantiles(latencies[20:], n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3


async def measure(case: Case, clients: int, count: int) -> tuple[float, float, float, int]:
    """p50 and p99 in ms, successes per second, retries, of clients at once."""
    latencies: list[float] = []
    retries = [0]
    began = time.perf_counter()
    each = count // clients
    await asyncio.gather(*(client(case, each, latencies, retries) for _ in range(clients)))
    seconds = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3, len(latencies) / seconds, retries[0]


def cases(
    stack: contextlib.ExitStack, packages: Path, state: Path
) -> tuple[list[Case], dict[str, float]]:
    """Start every peer; the cases, and what else was measured on the way."""
    env = {"CALLME_PACKAGES_DIR": str(packages), "CALLME_STATE_DIR": str(state)}
    uvicorn = [str(ROUTER_PYTHON.parent / "uvicorn"), "api:app", "--no-access-log", "--port"]
    text = b'{"input":{"text":"hello"}}'
    json_text = http_post("/predictions", "application/json", text)
    small_form = form("/echo", 'name="text"', b"hello")
    upload = form("/echo", 'name="file"; filename="a.bin"', MEGABYTE)
    with running([*uvicorn, str(port := free_port())], ROOT, env):
        wait_for(port, small_form)  # the schema is made on the very first start
    router_port = free_port()
    router = stack.enter_context(running([*uvicorn, str(router_port)], ROOT, env))
    extra = {"start_to_first_answer_s": wait_for(router_port, small_form)}

    coglet_port = coglet(stack, packages / "echo")
    proxy_port = free_port()
    proxy_argv = [str(BENCH_PYTHON), "-m", "uvicorn", "plain_proxy:app", "--no-access-log"]
    stack.enter_context(
        running(
            [*proxy_argv, "--port", str(proxy_port)],
            ROOT / "bench" / "peers",
            {"COGLET_URL": f"http://127.0.0.1:{coglet(stack, packages / 'echo')}"},
        )
    )
    wait_for(proxy_port, json_text)
    lit_port = free_port()
    lit = [str(BENCH_PYTHON), "litserve_echo.py", str(lit_port)]
    stack.enter_context(running(lit, ROOT / "bench" / "peers", {}))
    lit_json = http_post("/predict", "application/json", b'{"text":"hello"}')
    wait_for(lit_port, lit_json)

    data_uri = base64.b64encode(MEGABYTE)
    as_data = b'{"input":{"file":"data:application/octet-stream;base64,' + data_uri + b'"}}'
    coglet_upload = http_post("/predictions", "application/json", as_data)
    cog_api = http_post("/models/echo/predictions", "application/json", text)
    file_part = 'name="file"; filename="a.bin"'
    listed = [
        Case("coglet", "json", coglet_port, json_text),
        Case("plain proxy", "json", proxy_port, json_text),
        Case("litserve", "json", lit_port, lit_json),
        Case("router", "json", router_port, cog_api),
        Case("router", "form", router_port, small_form),
        Case("coglet", "upload", coglet_port, coglet_upload),
        Case("plain proxy", "upload", proxy_port, form("/upload", file_part, MEGABYTE)),
        Case("litserve", "upload", lit_port, form("/predict", file_part, MEGABYTE)),
        Case("router", "upload", router_port, upload),
    ]
    extra["router_pid"] = router.pid
    return listed, extra


def main() -> None:
    """Run, print, record."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        packages = folder / "packages"
        shutil.copytree(ECHO, packages / "echo", ignore=shutil.ignore_patterns(".cog"))
        listed, extra = cases(stack, packages, folder / "state")
        samples: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for _ in range(ROUNDS):
            for case in listed:
                count = UPLOAD_REQUESTS if case.kind == "upload" else JSON_REQUESTS
                one = measure_one(case, count)
                many = asyncio.run(measure(case, CLIENTS, count * 2))
                samples.setdefault((case.peer, case.kind), []).append((*one, *many))
        rows = []
        for (peer, kind), rounds in samples.items():
            p50, p99, _, p99_16, rps_16, retries = (
                statistics.median(r[i] for r in rounds) for i in range(6)
            )
            rows.append(Row(peer, kind, p50, p99, rps_16, p99_16, int(retries)))
        report(rows, extra["start_to_first_answer_s"], rss_mib(int(extra["router_pid"])))


def report(rows: list[Row], start_s: float, rss: float) -> None:
    """The table, the ratios, and the line for bench/results."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'peer':<12}{'request':<8}{'p50 ms':>8}{'p99 ms':>8}"
        f"{'16: rps':>9}{'p99 ms':>8}{'409s':>6}"
    )
    for r in rows:
        print(
            f"{r.peer:<12}{r.kind:<8}{r.p50_ms:>8.2f}{r.p99_ms:>8.2f}"
            f"{r.rps_16:>9.0f}{r.p99_16_ms:>8.1f}{r.retries_16:>6}"
        )
    by = {(r.peer, r.kind): r for r in rows}
    proxy, lit, ours = by["plain proxy", "json"], by["litserve", "json"], by["router", "json"]
    up, lit_up = by["router", "upload"], by["litserve", "upload"]
    print(f"json p50: {ours.p50_ms / proxy.p50_ms:.2f} x plain proxy (target <= 1)")
    print(f"json p50: {ours.p50_ms / lit.p50_ms:.2f} x litserve (aim <= 1)")
    print(f"json rps at 16: {ours.rps_16 / proxy.rps_16:.2f} x plain proxy (target >= 0.95)")
    print(f"json p99 at 16: {ours.p99_16_ms / proxy.p99_16_ms:.2f} x plain proxy (target <= 1)")
    print(f"upload p50: {up.p50_ms / lit_up.p50_ms:.2f} x litserve (target <= 0.5)")
    print(
        f"start to first answer: {start_s:.2f} s (target < 1.2)"
        f"   router RSS: {rss:.0f} MiB (target < 120)"
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    about = {"commit": commit, "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU"}
    about |= {"at": time.strftime("%Y-%m-%d"), "load": f"{os.getloadavg()[0]:.1f}"}
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    with (results / "router.jsonl").open("a") as out:
        for r in rows:
            out.write(json.dumps({**about, **asdict(r)}) + "\n")
        out.write(json.dumps({**about, "start_s": start_s, "router_rss_mib": rss}) + "\n")


if __name__ == "__main__":
    if not BENCH_PYTHON.exists():
        sys.exit("Cannot compare: make bench-router makes .venv-bench first")
    main()
