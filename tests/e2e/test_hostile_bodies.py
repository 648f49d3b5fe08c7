"""Bodies that are made to cost much: each costs at most four times its size, and others are served
meanwhile. `make bench-bodies` has all shapes and sizes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import Service

SIZE_BYTES = 8_000_000
JSON = {"content-type": "application/json"}
# The loop is held for some milliseconds; the rest is left to a machine that does other things.
LONGEST_WAIT_S = 1.5


def body(before: bytes, unit: bytes, after: bytes) -> bytes:
    """The unit as often as it goes into the size."""
    return before + unit * ((SIZE_BYTES - len(before) - len(after)) // len(unit)) + after


FILE, TAGS = b'{"input":{"file":"data:', b'{"input":{"tags":['
BODIES = {
    "percent signs": body(FILE + b",", b"%", b'"}}'),
    "a head without end": body(FILE, b";a", b'"}}'),
    "a file": body(FILE + b";base64,", b"QUFB", b'"}}'),
    "JSON escapes": body(FILE + b",", b"\\u0041", b'"}}'),
    "empty lists": body(TAGS, b"[],", b"1]}}"),
    "empty strings": body(TAGS, b'"",', b"1]}}"),
    "depth": body(TAGS, b"[", b""),
}


def memory_bytes(service: Service, name: str) -> int:
    """VmRSS or VmHWM of the router."""
    for line in Path(f"/proc/{service.child.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


@pytest.fixture
def longest_wait_s(echo: Service) -> Iterator[list[float]]:
    """Asks for /health all the time; the longest wait."""
    longest, ended = [0.0], threading.Event()

    def probe() -> None:
        with httpx.Client(base_url=echo.url, timeout=240) as http:
            while not ended.wait(0.005):
                began = time.perf_counter()
                assert http.get("/health").status_code == 200
                longest[0] = max(longest[0], time.perf_counter() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    yield longest
    ended.set()
    thread.join()


@pytest.mark.parametrize("shape", BODIES)
@pytest.mark.parametrize("path", ["/models/echo/predictions", "/v1/models/callme/echo/predictions"])
def test_what_it_costs(echo: Service, longest_wait_s: list[float], shape: str, path: str) -> None:
    """Memory, and the time of others."""
    echo.http.post(path, json={"input": {}}).raise_for_status()
    idle_bytes = memory_bytes(echo, "VmRSS")
    Path(f"/proc/{echo.child.pid}/clear_refs").write_text("5")
    longest_wait_s[0] = 0.0
    answer = echo.http.post(path, content=BODIES[shape], headers={**JSON, "Prefer": "wait"})
    assert answer.status_code in (200, 201, 413, 422), answer.text[:300]
    assert len(answer.content) < 5000
    gained_bytes = memory_bytes(echo, "VmHWM") - idle_bytes
    assert gained_bytes <= 4 * SIZE_BYTES, f"{gained_bytes / SIZE_BYTES:.1f} times its size"
    assert longest_wait_s[0] <= LONGEST_WAIT_S


def test_ten_at_once(echo: Service, longest_wait_s: list[float]) -> None:
    """Forms with a megabyte of empty lists each."""
    text = "[" + "[]," * 340_000 + "1]"
    statuses: list[int] = []

    def send() -> None:
        with httpx.Client(base_url=echo.url, timeout=240) as http:
            statuses.append(http.post("/echo", files={"tags": (None, text)}).status_code)

    senders = [threading.Thread(target=send) for _ in range(10)]
    longest_wait_s[0] = 0.0
    for t in senders:
        t.start()
    for t in senders:
        t.join()
    assert statuses == [413] * 10
    assert longest_wait_s[0] <= LONGEST_WAIT_S
