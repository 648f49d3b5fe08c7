"""Where each microsecond of a prediction goes: one JSON prediction of an echo, layer by layer.

`make bench-layers`. The same client (one blocking socket) asks a bare ASGI application, the
router's own /health, coglet, and the router for a prediction. What the router does besides
HTTP is measured in this process. Medians; prints a table and appends one JSON line to
bench/results/layers.jsonl.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from peer_servers import ROUTER_PYTHON, Client, coglet, free_port, http_post, running, wait_for

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # This folder has a router.py; the package of that name is what is measured.
    sys.path[0] = str(ROOT)

from router.http.apis.cog import cog_view  # noqa: E402
from router.inputs.input_schema import InputSchema  # noqa: E402
from router.models.coglet_client import CogClient  # noqa: E402
from router.models.coglet_responses import read_outcome  # noqa: E402
from router.prediction import Prediction, Status, advance, conclude, new_id  # noqa: E402
from router.scheduling import messages as msg  # noqa: E402
from router.scheduling.scheduler import Policy, Scheduler  # noqa: E402

REQUESTS = 2000
WARM_UP = 200
INPUT = b'{"input":{"text":"hello"}}'


def median_us(act: Callable[[], object], count: int = REQUESTS) -> float:
    """The median time of one call."""
    taken = []
    for _ in range(WARM_UP + count):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[WARM_UP:]) * 1e6


def over_http(port: int, request: bytes) -> float:
    """The median of one client's requests, one after the other; a 409 is tried again at once
    and counts for what it costs."""
    client = Client(port)

    def ask() -> None:
        while client.exchange(request)[0] == 409:
            time.sleep(0.001)

    try:
        return median_us(ask)
    finally:
        client.close()


async def through_our_client(port: int) -> tuple[float, bytes]:
    """coglet as the router's adapter meets it: µs, and an answer."""
    client = CogClient(port)
    taken, answer = [], b""
    for _ in range(WARM_UP + REQUESTS):
        began = time.perf_counter()
        _, answer = await client.predict(INPUT, lambda: False)
        taken.append(time.perf_counter() - began)
    await client.close()
    return statistics.median(taken[WARM_UP:]) * 1e6, answer


def in_process(schema: dict[str, Any], answer: bytes) -> dict[str, float]:
    """The router's own work on one prediction, piece by piece, in µs."""
    spec = InputSchema(schema)
    scheduler = Scheduler({"echo": 1}, 1 << 40, Policy(default_footprint_bytes=1))
    scheduler.handle(msg.Load("echo"), 0.0)
    scheduler.handle(msg.Ready("echo", 1, 1.0, 1), 1.0)
    now = 2.0

    def schedule() -> None:
        nonlocal now
        now += 0.001
        scheduler.handle(msg.Submitted("p", "echo"), now)
        scheduler.handle(msg.Finished("p", "echo", 1, 0.001), now)
        scheduler.next_wakeup(now)

    outcome = read_outcome(200, answer)
    waiting = Prediction(new_id(), "echo", {"text": "hello"}, created_at=1.0)

    def live() -> Prediction:
        return conclude(advance(waiting, Status.PROCESSING, 2.0), outcome, 3.0)

    ended = live()
    return {
        "read the request's JSON": median_us(lambda: orjson.loads(INPUT)),
        "check the inputs against the schema": median_us(lambda: spec.check({"text": "hi"}, set())),
        "schedule: submitted, run, finished": median_us(schedule),
        "the prediction's states": median_us(live),
        "read coglet's answer": median_us(lambda: read_outcome(200, answer)),
        "write the answer's JSON": median_us(lambda: orjson.dumps(cog_view(ended))),
    }


def measure(folder: Path) -> dict[str, float]:
    """Every layer, in µs, from the outside in."""
    packages = folder / "packages"
    echo = ROOT / "tests" / "packages" / "echo"
    shutil.copytree(echo, packages / "echo", ignore=shutil.ignore_patterns(".cog"))
    env = {"CALLME_PACKAGES_DIR": str(packages), "CALLME_STATE_DIR": str(folder / "state")}
    uvicorn = [str(ROUTER_PYTHON.parent / "uvicorn"), "--no-access-log", "--port"]
    predict = http_post("/models/echo/predictions", "application/json", INPUT)
    health = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with contextlib.ExitStack() as stack:
        bare, ours = free_port(), free_port()
        stack.enter_context(
            running([*uvicorn, str(bare), "bare_asgi:app"], ROOT / "bench" / "peers", {})
        )
        stack.enter_context(running([*uvicorn, str(ours), "api:app"], ROOT, env))
        wait_for(bare, predict)
        wait_for(ours, predict)
        schema = orjson.loads((packages / "echo" / ".cog" / "openapi_schema.json").read_bytes())
        alone = coglet(stack, packages / "echo")
        direct = http_post("/predictions", "application/json", INPUT)
        adapter_us, answer = asyncio.run(through_our_client(alone))
        return {
            "uvicorn alone: a bare ASGI application": over_http(bare, predict),
            "the router's /health: the same through every layer of ours": over_http(ours, health),
            "coglet alone": over_http(alone, direct),
            "coglet through the router's client": adapter_us,
            "a prediction by the router": over_http(ours, predict),
            **in_process(schema, answer),
        }


def main() -> None:
    """Measure, print, record."""
    with tempfile.TemporaryDirectory() as folder:
        layers = measure(Path(folder))
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}")
    for what, us in layers.items():
        print(f"{us:>8.0f} µs  {what}")
    line = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU",
        "at": time.strftime("%Y-%m-%d"),
        "load": f"{load:.1f}",
        "us": {k: round(v, 1) for k, v in layers.items()},
    }
    with (ROOT / "bench" / "results" / "layers.jsonl").open("a") as out:
        out.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
