"""What does a hostile body cost the edge function? `python bench/edge_bodies.py`: CPU and memory.

A worker of Supabase's has 256 MB, which its concurrent requests share, and 2 s of CPU a request.
Each shape of body, as large as the function reads, is sent to a fresh process of the function
in front of a stand-in for the GPU box; the row has the status, the peak of the process's memory
(VmHWM), its CPU seconds and the time to the answer. Then several clients send a 10 MiB file at
once. One line a row is appended to bench/results/edge_bodies.jsonl. Linux only.
"""

from __future__ import annotations

import argparse
import base64
import collections
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "edge"))

from box import Answer, Received, running_box  # noqa: E402 - after the path is set
from deno_server import edge_process, find_deno  # noqa: E402
from npm_tools import DENO_HOSTED, npm_binary  # noqa: E402

BODY_BYTES = 14_000_000
"""A little under what a file of 10 MiB takes as base64, so that no size check refuses it."""

TEXT_BYTES = 1_000_000
FILE_BYTES = 10 * 1024 * 1024
HEAD, TAIL = b'{"endpoint":"fluency","audio":"data:audio/wav;base64,', b'"}'
NEXT = b'{"endpoint":"fluency","audio":"data:audio/wav;base64,AAAA","x":'
BOX_S = 0.5
"""How long the stand-in works, so that requests overlap as they do in front of a GPU."""


def repeated(start: bytes, unit: bytes, end: bytes, size: int = BODY_BYTES) -> bytes:
    """`unit` between `start` and `end`, as often as it fits into `size` bytes."""
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


def file_body() -> bytes:
    """A file of 10 MiB, as a browser sends it."""
    return HEAD + base64.b64encode(os.urandom(FILE_BYTES)) + TAIL


def many_keys() -> bytes:
    """An object with another key each time."""
    pairs = b",".join(b'"k%d":1' % i for i in range(BODY_BYTES // 13))
    return b'{"endpoint":"fluency",' + pairs + b"}"


TEXTS = {
    "numbers 1,": (b"[", b"1,", b"1]}"),
    'strings "",': (b"[", b'"",', b'""]}'),
    "arrays [],": (b"[", b"[],", b"[]]}"),
    "objects {},": (b"[", b"{},", b"{}]}"),
    "a prompt of \\u0041": (b'"', b"\\u0041", b'"}'),
    'a prompt of \\"': (b'"', b'\\"', b'"}'),
}
"""Shapes that are no file, sent once at full size and once within the function's 1 MiB of text."""

SHAPES = {
    "a file of 10 MiB": file_body,
    **{name: partial(repeated, NEXT + a, b, c) for name, (a, b, c) in TEXTS.items()},
    **{
        f"1 MB of {name}": partial(repeated, NEXT + a, b, c, TEXT_BYTES)
        for name, (a, b, c) in TEXTS.items()
    },
    "depth [[[[": lambda: repeated(NEXT, b"[", b""),
    "another key each": many_keys,
    "one key again": lambda: repeated(b"{", b'"a":1,', b'"endpoint":"fluency"}'),
    "a number of digits": lambda: repeated(NEXT, b"1", b"}"),
    "blanks": lambda: repeated(b"", b" ", b""),
    "a prompt of letters": lambda: repeated(NEXT + b'"', b"x", b'"}'),
    "a key of letters": lambda: repeated(b'{"', b"x", b'":1}'),
    "files data:,": lambda: repeated(NEXT + b"[", b'"data:,",', b'""]}'),
    "a file of \\u0041": lambda: repeated(HEAD, b"\\u0041", TAIL),
    "a file of %41": lambda: repeated(HEAD, b"%41", TAIL),
    'a file of \\"': lambda: repeated(b'{"endpoint":"fluency","audio":"data:,', b'\\"', TAIL),
    "a file beyond ASCII": lambda: repeated(
        b'{"endpoint":"fluency","audio":"data:,', "猫".encode(), TAIL
    ),
    "a file of line breaks": lambda: repeated(HEAD, b"\\n", TAIL),
    "a file without end": lambda: repeated(HEAD, b"A", b""),
}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def post(url: str, body: bytes) -> int:
    """The status of an answer; 0 where the function hung up, -1 after a minute without one."""
    try:
        return httpx.post(url, content=body, timeout=60).status_code
    except httpx.TimeoutException:
        return -1
    except httpx.TransportError:
        return 0  # refused in the middle of the body


def measure(deno: Path, body: bytes, clients: int) -> dict[str, object]:
    """Sends `body` from `clients` at once to a fresh process, and reads what it took."""

    def works(_: Received) -> Answer:
        time.sleep(BOX_S)
        return Answer()

    with running_box(works) as box:
        env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": "k" * 32}
        with edge_process(env, deno) as function, ThreadPoolExecutor(clients) as pool:
            pid = function.process.pid
            cpu, began = cpu_seconds(pid), time.monotonic()
            statuses = collections.Counter(
                pool.map(post, [function.url] * clients, [body] * clients)
            )
            return {
                "status": {str(key): count for key, count in sorted(statuses.items())},
                "peak_mb": round(peak_mb(pid)),
                "cpu_s": round(cpu_seconds(pid) - cpu, 2),
                "wall_s": round(time.monotonic() - began, 2),
            }


def main() -> None:
    """Measures every shape on both versions of Deno."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", required=True, help="what was measured")
    parser.add_argument("--only", default="", help="shapes whose name holds this text")
    parser.add_argument("--at-once", type=int, nargs="*", default=[6, 24])
    arguments = parser.parse_args()
    results = ROOT / "bench" / "results" / "edge_bodies.jsonl"
    for deno in (find_deno(), npm_binary(DENO_HOSTED, "deno")):
        version = "hosted 2.1.4" if "npm" in str(deno) else "pinned 2.9.8"
        work = [(shape, make, 1) for shape, make in SHAPES.items() if arguments.only in shape]
        work += [(f"{n} files of 10 MiB at once", file_body, n) for n in arguments.at_once]
        for shape, make, clients in work:
            row = {"deno": version, "shape": shape, **measure(deno, make(), clients)}
            print(json.dumps(row, ensure_ascii=False), flush=True)
            about = {
                "commit": arguments.commit,
                "machine": f"{os.uname().machine}, {os.cpu_count()} cores, CPU",
                "at": datetime.now(UTC).date().isoformat(),
                "load": str(round(os.getloadavg()[0], 1)),
            }
            with results.open("a") as out:
                out.write(json.dumps({**about, **row}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
