"""What reading HTTP costs: one bare application behind several servers and event loops.

`make bench-http-servers`. One blocking client asks them in turn, many short rounds, so that what
else the machine does meets all alike. The processor time of a server comes from the scheduler's
own account (/proc/PID/task/*/schedstat, nanoseconds). Prints a table and appends one JSON line per
server to bench/results/http_servers.jsonl. docs/decisions/http-server.md says what follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from peer_servers import (
    BENCH_PYTHON,
    ROUTER_PYTHON,
    Client,
    free_port,
    http_post,
    rss_mib,
    running,
    wait_for,
)

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 30
SMALL_REQUESTS, LARGE_REQUESTS = 150, 10
WARM_UP = 20
# What the edge function sends through a tunnel: 14 fields.
FIELDS = (
    "Host: box.example.com\r\nAuthorization: Bearer ck_0123456789012345678901234567890123456789\r\n"
    "User-Agent: Deno/2.9.8\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nX-Request-Id: abcdef\r\n"
    "Cf-Ray: 8a1b2c3d4e5f-FRA\r\nCF-Connecting-IP: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\n"
    "X-Forwarded-Proto: https\r\nCdn-Loop: cloudflare\r\nContent-Type: application/json\r\n"
)
BODY = '{"input":{"text":"hello"}}'
SMALL = f"POST / HTTP/1.1\r\n{FIELDS}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
LARGE = http_post("/", "application/octet-stream", os.urandom(1 << 20))


@dataclass(frozen=True)
class Row:
    """Medians over the rounds; microseconds for each request."""

    server: str
    p50_us: float
    cpu_us: float
    megabyte_cpu_us: float
    rss_mib: float


def servers() -> Iterator[tuple[str, int, list[str]]]:
    """Name, port, and how it is started."""
    uvicorn, more = str(ROUTER_PYTHON.parent / "uvicorn"), BENCH_PYTHON.parent
    for loop in ("uvloop", "asyncio"):
        for http in ("httptools", "h11"):
            argv = [uvicorn, "bare_asgi:app", "--no-access-log", "--loop", loop, "--http", http]
            port = free_port()
            yield f"uvicorn, {http}, {loop}", port, [*argv, "--port", str(port)]
        port = free_port()
        yield f"ours, {loop}", port, [str(ROUTER_PYTHON), "our_asgi.py", str(port), loop]
    port = free_port()
    options = ["--interface", "asgi", "--loop", "uvloop", "--no-access-log", "--port", str(port)]
    yield "granian", port, [str(more / "granian"), "bare_asgi:app", *options]
    port = free_port()
    yield (
        "hypercorn",
        port,
        [str(more / "hypercorn"), "bare_asgi:app", "-k", "uvloop", "-b", f"127.0.0.1:{port}"],
    )


def family(pid: int) -> list[int]:
    """The process and all that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Processor time of all its threads and children so far."""
    tasks = [task for one in family(pid) for task in Path(f"/proc/{one}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def ask(port: int, pid: int, request: bytes, count: int) -> tuple[float, float]:
    """Median latency and processor time of a request, in µs."""
    client, taken = Client(port), []
    for _ in range(WARM_UP if count > WARM_UP else 1):
        client.exchange(request)
    before = cpu_s(pid)
    for _ in range(count):
        began = time.perf_counter()
        try:
            status, _ = client.exchange(request)
        except ConnectionError:  # hypercorn closes after 1,000 requests
            client = Client(port)
            status, _ = client.exchange(request)
        assert status == 200
        taken.append(time.perf_counter() - began)
    client.close()
    return statistics.median(taken) * 1e6, (cpu_s(pid) - before) / count * 1e6


def main() -> None:
    """Measure, print, record."""
    with contextlib.ExitStack() as stack:
        running_ones = []
        for name, port, argv in servers():
            env = {"PYTHONPATH": str(ROOT)}
            child = stack.enter_context(running(argv, ROOT / "bench" / "peers", env))
            wait_for(port, SMALL)
            running_ones.append((name, port, child.pid))
        samples: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(ROUNDS):
            for name, port, pid in running_ones:
                small = ask(port, pid, SMALL, SMALL_REQUESTS)
                large = ask(port, pid, LARGE, LARGE_REQUESTS)
                samples.setdefault(name, []).append((*small, large[1]))
        rows = []
        for name, _, pid in running_ones:
            p50, cpu, megabyte = (statistics.median(s[i] for s in samples[name]) for i in range(3))
            rss = sum(rss_mib(one) for one in family(pid))
            rows.append(Row(name, round(p50), round(cpu), round(megabyte), round(rss)))
    report(rows)


def report(rows: list[Row]) -> None:
    """The table, and the lines for bench/results."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'server':<28}{'p50 µs':>8}{'CPU µs':>8}{'1 MB: CPU µs':>14}{'RSS MiB':>9}")
    for r in rows:
        figures = f"{r.p50_us:>8.0f}{r.cpu_us:>8.0f}{r.megabyte_cpu_us:>14.0f}{r.rss_mib:>9.0f}"
        print(f"{r.server:<28}{figures}")
    about = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU"}
    about |= {"at": time.strftime("%Y-%m-%d"), "load": f"{os.getloadavg()[0]:.1f}"}
    with (ROOT / "bench" / "results" / "http_servers.jsonl").open("a") as out:
        for r in rows:
            out.write(json.dumps({**about, **asdict(r)}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
