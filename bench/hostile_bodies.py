"""What does a body cost that is made to cost much? `make bench-bodies`.

Fifteen shapes of 1, 8 and 24 MB, each sent to the three APIs of a real router. Of each it prints
the peak of the router's memory above what it held before (VmHWM of /proc, set back before each
request), over the size of the body, and the longest that /health had to be waited for meanwhile;
then the longest wait while ten bodies of 1 MB come at once and two other processes keep two cores
busy. Each shape and API has a router of its own, or memory that an earlier body has left behind
would hide what a later one takes. Appends a JSON line to bench/results/hostile_bodies.jsonl; exit
status 1 when memory is over 4 times a body or a wait over 200 ms.

VmHWM counts what the allocator keeps free for the next request, so a peak may seem smaller than
what was in use, never larger: the first, smallest body of each router is the strictest.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.service import Service, running_service, wait_until  # noqa: E402 - after the path is set

MEGABYTES = (1, 8, 24)
AT_ONCE = 10
MAX_RATIO, MAX_WAIT_MS = 4.0, 200.0
PROBE_EVERY_S = 0.005
ANSWER_WITHIN_S = 120
BOUNDARY = b"a-boundary-as-long-as-a-browser's"
APIS = {
    "form": "/echo",
    "cog": "/models/echo/predictions",
    "replicate": "/v1/models/callme/echo/predictions",
}

Fill = Callable[[int], bytes]


@dataclass(frozen=True)
class Shape:
    """A value of so many bytes: as JSON has it, and as the content of a form's part."""

    name: str
    field: str
    json: Fill
    form: Fill
    is_upload: bool = False
    byte_by_byte: bool = False


def repeated(unit: bytes, before: bytes = b"", after: bytes = b"") -> Fill:
    """`before`, the unit as often as it goes into the size, `after`."""

    def fill(size: int) -> bytes:
        return before + unit * ((size - len(before) - len(after)) // len(unit)) + after

    return fill


def string(unit: bytes, head: bytes = b"", after: bytes = b"") -> tuple[Fill, Fill]:
    """The same as a JSON string, and as it is."""
    return repeated(unit, b'"' + head, after + b'"'), repeated(unit, head, after)


def both(unit: bytes, before: bytes, after: bytes) -> tuple[Fill, Fill]:
    """The same JSON in both."""
    fill = repeated(unit, before, after)
    return fill, fill


def names(size: int) -> bytes:
    """An object with as many names."""
    return b"{" + b",".join(b'"%07d":{}' % i for i in range(size // 14)) + b"}"


SHAPES = (
    Shape("a file", "file", *string(b"QUFB", b"data:;base64,"), is_upload=True),
    Shape("percent signs", "file", *string(b"%", b"data:,")),
    Shape("percent escapes", "file", *string(b"%41", b"data:,")),
    Shape("a head without end", "file", *string(b";a", b"data:")),
    Shape("broken base64", "file", *string(b"QUFB", b"data:;base64,", b"!")),
    Shape("JSON escapes", "file", *string(b"\\u0041", b"data:,")),
    Shape("quotes and backslashes", "file", *string(b'\\"\\\\', b"data:,")),
    Shape("many data: URIs", "file", *both(b'"data:,' + b"x" * 5000 + b'",', b"[", b"1]")),
    Shape("empty lists", "tags", *both(b"[],", b"[", b"1]")),
    Shape("empty strings", "tags", *both(b'"",', b"[", b"1]")),
    Shape("names", "tags", names, names),
    Shape("depth", "tags", *both(b"[", b"", b"")),
    Shape("one long text", "tags", *both(b"a", b'["', b'"]')),
    Shape("a text with an emoji", "tags", *both(b"a", '["😀'.encode(), b'"]')),
    Shape("chunks of one byte", "tags", *both(b"1,", b"[", b"1]"), byte_by_byte=True),
)


def request(shape: Shape, api: str, size: int) -> tuple[bytes, bytes]:
    """Head and body."""
    if api == "form":
        kind = b"multipart/form-data; boundary=" + BOUNDARY
        filename = b'; filename="a.bin"' if shape.is_upload else b""
        body = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n--%s--\r\n' % (
            *(BOUNDARY, shape.field.encode(), filename),
            *(shape.form(size), BOUNDARY),
        )
    else:
        kind = b"application/json"
        body = b'{"input":{"%s":%s}}' % (shape.field.encode(), shape.json(size))
    length = b"Transfer-Encoding: chunked"
    if shape.byte_by_byte:
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    else:
        length = b"Content-Length: %d" % len(body)
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n%s\r\n\r\n"
    return head % (APIS[api].encode(), kind, length), body


def send(port: int, head: bytes, body: bytes) -> int:
    """POST it; the answer's status, 0 when the connection was closed without one. A refusal may
    come while the body is still on its way."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
            connection.sendall(body)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in answer and (piece := connection.recv(1 << 16)):
                answer += piece
    return int(answer[9:12] or b"0")


class Prober:
    """Asks for /health all the time; `longest_s` is the longest wait since `reset`."""

    def __init__(self, port: int) -> None:
        self.longest_s = 0.0
        self._port = port
        self._ended = threading.Event()
        self._began: float | None = None
        self._thread = threading.Thread(target=self._probe)
        self._thread.start()

    def reset(self) -> None:
        """Begin to watch."""
        self.longest_s = 0.0

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join()

    def _probe(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_WITHIN_S)
        while not self._ended.wait(PROBE_EVERY_S):
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            self.longest_s = max(self.longest_s, time.perf_counter() - began)


def memory_kib(pid: int, name: str) -> int:
    """VmRSS or VmHWM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


def settled_kib(pid: int) -> int:
    """VmRSS, once it has stayed the same for half a second."""
    last, since = memory_kib(pid, "VmRSS"), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if (now := memory_kib(pid, "VmRSS")) != last:
            last, since = now, time.monotonic()
    return last


@dataclass
class Cell:
    """One body. `ratio`: peak of memory above idle over the body's bytes."""

    status: int
    ratio: float
    wait_ms: float


def measure(service: Service, prober: Prober, head: bytes, body: bytes) -> Cell:
    """Send one body."""
    pid, port = service.child.pid, int(service.url.rsplit(":", 1)[1])
    idle_kib = settled_kib(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    prober.reset()
    status = send(port, head, body)
    time.sleep(4 * PROBE_EVERY_S)  # a wait that began before the end counts
    gained = max(memory_kib(pid, "VmHWM") - idle_kib, 0) << 10
    return Cell(status, gained / len(body), prober.longest_s * 1e3)


def wait_of_many(service: Service, prober: Prober, head: bytes, body: bytes) -> float:
    """The longest wait, in ms, while AT_ONCE of them come at once and two cores are busy."""
    port = int(service.url.rsplit(":", 1)[1])
    spin = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.callback(subprocess.Popen(spin).kill)
        senders = [threading.Thread(target=send, args=(port, head, body)) for _ in range(AT_ONCE)]
        prober.reset()
        for t in senders:
            t.start()
        for t in senders:
            t.join()
        time.sleep(4 * PROBE_EVERY_S)
        return prober.longest_s * 1e3


@contextlib.contextmanager
def router(packages: Path, folder: Path) -> Iterator[tuple[Service, Prober]]:
    """A router whose model is ready, and which has served some requests."""
    shutil.rmtree(folder, ignore_errors=True)
    with running_service(packages, folder / "state") as service:
        for _ in range(20):
            for path in ("/models/echo/predictions", "/v1/models/callme/echo/predictions"):
                service.http.post(path, json={"input": {"tags": ["a"]}}).raise_for_status()
            form = {"text": (None, "hi"), "file": ("a.bin", b"x" * 1000)}
            service.http.post("/echo", files=form).raise_for_status()
        prober = Prober(int(service.url.rsplit(":", 1)[1]))
        try:
            yield service, prober
        finally:
            prober.close()


def measured(packages: Path, folder: Path, shape: Shape, api: str) -> tuple[list[Cell], float]:
    """A cell for each size, and the wait for many at once."""
    with router(packages, folder) as (service, prober):
        cells = [measure(service, prober, *request(shape, api, mb * 1_000_000)) for mb in MEGABYTES]
        many_ms = wait_of_many(service, prober, *request(shape, api, 1_000_000))
        wait_until(lambda: not service.spooled())  # nothing of any of them is left
        return cells, many_ms


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="shapes whose name has this in it")
    only = parser.parse_args().only
    print(f"{'shape':<24}{'API':<11}" + "".join(f"{f'{mb} MB':^22}" for mb in MEGABYTES), end="")
    print(f"{AT_ONCE} of 1 MB, busy")
    rows, worst_ratio, worst_ms = [], 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder) / "packages"
        shutil.copytree(ROOT / "tests" / "packages" / "echo", packages / "echo")
        for shape in (s for s in SHAPES if only in s.name):
            for api in APIS:
                cells, many_ms = measured(packages, Path(folder) / "run", shape, api)
                worst_ratio = max(worst_ratio, *(c.ratio for c in cells))
                worst_ms = max(worst_ms, many_ms, *(c.wait_ms for c in cells))
                text = "".join(f"{c.status:>6}{c.ratio:>6.2f} x{c.wait_ms:>5.0f} ms" for c in cells)
                print(f"{shape.name:<24}{api:<11}{text}{many_ms:>10.0f} ms", flush=True)
                bodies = [[c.status, round(c.ratio, 2), round(c.wait_ms)] for c in cells]
                rows.append([shape.name, api, *bodies, round(many_ms)])
    print(f"worst: {worst_ratio:.2f} x its size, /health waited {worst_ms:.0f} ms")
    if not only:
        record(rows, worst_ratio, worst_ms)
    return 1 if worst_ratio > MAX_RATIO or worst_ms > MAX_WAIT_MS else 0


def record(rows: list[list[object]], worst_ratio: float, worst_ms: float) -> None:
    """Append to bench/results/hostile_bodies.jsonl."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()
    row = {
        "commit": commit,
        "at": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU",
        "load": f"{os.getloadavg()[0]:.1f}",
        "worst_ratio": round(worst_ratio, 2),
        "worst_wait_ms": round(worst_ms),
        "bodies": rows,
    }
    with (ROOT / "bench" / "results" / "hostile_bodies.jsonl").open("a") as out:
        out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.exit(main())
