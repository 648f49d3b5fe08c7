"""What does a call of each function cost? `python bench/supabase_functions.py`: CPU and memory.

Supabase gives a request 2 s of processor, and its concurrent requests 256 MB. Each kind of call is
made in a fresh process of the function, with the real SQL behind it: once, which includes what V8
compiles at a first call, and then five times more; all of it in RUNS processes. A row has, in ms of
processor of all threads: `start` until it listens, which includes reading and transpiling the
files, `first` the first call (best, median and worst of the processes), `later` the median of the
later ones. `peak_mb`: the most memory that a process ever had (VmHWM); `idle_mb`: the same before
the first call. `--bundled` runs what `deno bundle` makes of the files: the platform does not
transpile them at a start either. One line a row is appended to
bench/results/supabase_functions.jsonl. Needs Postgres 15. Linux only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "edge"))

from box import Box, running_box  # noqa: E402 - after the path is set
from deno_server import FUNCTION, edge_process, find_deno, plain_env  # noqa: E402
from npm_tools import DENO_HOSTED, npm_binary  # noqa: E402
from postgres import running_cluster  # noqa: E402
from supabase_project import PUBLIC_KEY, Project, running_project, token_of  # noqa: E402
from test_predictions import FUNCTIONS, KEY, SECRET, A, accepted  # noqa: E402

LATER = 5
RUNS = 3
MB = 10**6
COMPACT: Any = {"separators": (",", ":")}
# The largest inputs: names that are all different, empty objects, numbers.
NAMES = json.dumps({f"k{i}": 0 for i in range(18_500)})
OBJECTS = json.dumps({"a": [{}] * 64_000}, **COMPACT)
NUMBERS = json.dumps({"a": [1] * 85_000}, **COMPACT)
Request = tuple[str, str, bytes, dict[str, str]]  # method, path, body, headers


def cpu_ms(pid: int) -> float:
    """Processor time of all threads that run now, in ms."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def memory_mb(pid: int, what: str = "VmHWM") -> float:
    """Resident memory of a process, MB: the most ever, or `VmRSS`: now."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / MB


class Calls:
    """Makes the calls. `project`: the stand-in, with one user. A row of the user exists for each
    webhook that ends one."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._as_user = {"apikey": PUBLIC_KEY, "Authorization": f"Bearer {token_of(A)}"}
        # One file of 10 MB, as the page would have uploaded it.
        self._reference = f"callme-inputs/{A}/file.wav"
        url = f"{project.url}/storage/v1/object/{self._reference}"
        httpx.post(url, content=os.urandom(10 * MB), headers=self._as_user).raise_for_status()

    def create(self, **extra: Any) -> Request:
        """A run with a file of 10 MB."""
        body = {"model": "echo", "input": {"audio": f"storage://{self._reference}", **extra}}
        return "POST", "/predictions", json.dumps(body).encode(), self._as_user

    def create_with(self, size: int) -> Request:
        """A run with as much text beside the file."""
        return self.create(text="x" * size)

    def create_from(self, text: str) -> Request:
        """A run whose input is this JSON."""
        body = f'{{"model":"echo","input":{text}}}'.encode()
        return "POST", "/predictions", body, self._as_user

    def create_many(self, count: int) -> Request:
        """A run with the file in that many places."""
        return self.create_from(json.dumps({"a": [f"storage://{self._reference}"] * count}))

    def sweep(self) -> Request:
        """More rows are due than one call takes, and their inputs are the largest."""
        columns = "user_id, model, input"
        values = f"select '{A}', 'echo', '{NAMES}' from generate_series(1, {2 * LATER})"  # noqa: S608
        insert = f"insert into callme.predictions ({columns}) {values}"
        self._project.database.run(f"delete from callme.predictions; {insert}")  # noqa: S608
        return "POST", "/predictions/sweep", b"", {}

    def cancel(self) -> Request:
        """Of a row that the box has."""
        return "DELETE", f"/predictions/{self._row()}", b"", self._as_user

    def report(self, **event: Any) -> Request:
        """A webhook about a row that is new."""
        name = self._row()
        body = json.dumps(
            {"id": name, "status": "processing", "at": 1, **event}, **COMPACT
        ).encode()
        stamp = str(int(time.time()))
        key = base64.b64decode(SECRET)
        signed = hmac.digest(key, f"m.{stamp}.".encode() + body, hashlib.sha256)
        token = hmac.digest(key, f"callme webhook url\n{name}".encode(), hashlib.sha256).hex()
        headers = {
            "webhook-id": "m",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        return "POST", f"/prediction_webhook?prediction={name}&token={token}", body, headers

    def files(self, count: int) -> Request:
        """The question where to upload output files."""
        names = [{"name": f"output-{i}.png"} for i in range(count)]
        return self.report(event="files", files=names)

    def end(self, size: int) -> Request:
        """A result of so many bytes."""
        return self.report(status="succeeded", output="x" * size)

    def end_of(self, count: int) -> Request:
        """A result of so many members with different names."""
        return self.report(status="succeeded", output=dict.fromkeys(map(str, range(count)), 0))

    def backend(self, size: int) -> Request:
        """A file within the request."""
        file = base64.b64encode(os.urandom(size)).decode()
        body = {"endpoint": "fluency", "audio": f"data:audio/wav;base64,{file}"}
        return "POST", "/backend_server", json.dumps(body).encode(), {}

    def _row(self) -> str:
        columns, values = "user_id, model, sent_at", f"'{A}', 'echo', now()"
        insert = f"insert into callme.predictions ({columns}) values ({values})"  # noqa: S608
        return self._project.database.run(f"{insert} returning id")


def calls_of(calls: Calls) -> list[tuple[str, str, Callable[[], Request]]]:
    """Each kind of call: the function, what it is, and how one is made."""
    return [
        ("predictions", "run, a file of 10 MB in Storage", calls.create),
        ("predictions", "run, the same and 250 kB of text", lambda: calls.create_with(250_000)),
        ("predictions", "run, a file in 100 places", lambda: calls.create_many(100)),
        ("predictions", "run, 18,500 names in the input", lambda: calls.create_from(NAMES)),
        ("predictions", "run, 64,000 objects in the input", lambda: calls.create_from(OBJECTS)),
        ("predictions", "run, 85,000 numbers in the input", lambda: calls.create_from(NUMBERS)),
        ("predictions", "10 MB in the body: refused", lambda: calls.create_with(10 * MB)),
        ("predictions", "sweep, two of the largest inputs", calls.sweep),
        ("predictions", "cancel", calls.cancel),
        ("prediction_webhook", "progress", lambda: calls.report(progress=5, log_tail="x" * 8000)),
        ("prediction_webhook", "where to upload 25 files", lambda: calls.files(25)),
        ("prediction_webhook", "a result of 1 MB", lambda: calls.end(10**6)),
        ("prediction_webhook", "a result of 150,000 names", lambda: calls.end_of(150_000)),
        ("prediction_webhook", "a result of 8 MB: too large for a row", lambda: calls.end(8 * MB)),
        ("prediction_webhook", "a result of 10 MB: not read", lambda: calls.end(10 * MB)),
        ("backend_server", "a file of 10 MB", lambda: calls.backend(10 * MB)),
    ]


def measure(
    folder: Path, make: Callable[[], Request], project: Project, box: Box, deno: Path
) -> dict[str, Any]:
    """RUNS fresh processes of the function in `folder`, each with one call and LATER more."""
    env = {
        **project.env(),
        "CALLME_WEBHOOK_SECRET": f"whsec_{SECRET}",
        "GPU_BACKEND_URL": box.url,
        "GPU_BACKEND_KEY": KEY,
        "GPU_BACKEND_KEY_ID": "web",
        "CALLME_FUNCTIONS_URL": "http://127.0.0.1:9",
    }
    started, first, later, peaks, idle = [], [], [], [], []
    statuses: set[int] = set()
    for _ in range(RUNS):
        with edge_process(env, deno, folder) as running, httpx.Client(timeout=60) as http:
            pid = running.process.pid
            started.append(cpu_ms(pid))
            idle.append(memory_mb(pid))
            took: list[float] = []
            for _ in range(1 + LATER):
                box.received.clear()
                method, path, body, headers = make()
                cpu = cpu_ms(pid)
                try:
                    answer = http.request(method, running.url + path, content=body, headers=headers)
                    statuses.add(answer.status_code)
                except httpx.TransportError:  # refused before the body's end
                    statuses.add(0)
                took.append(cpu_ms(pid) - cpu)
            first.append(took[0])
            later += took[1:]
            peaks.append(memory_mb(pid))
    return {
        "status": sorted(statuses),
        "start_cpu_ms": round(statistics.median(started), 1),
        "first_cpu_ms": {
            "best": round(min(first), 1),
            "median": round(statistics.median(first), 1),
            "worst": round(max(first), 1),
        },
        "later_cpu_ms": round(statistics.median(later), 1),
        "peak_mb": round(max(peaks)),
        "idle_mb": round(statistics.median(idle)),
    }


def bundle(folder: Path, into: Path) -> Path:
    """A folder with all files of the function as one."""
    made = into / folder.name
    made.mkdir()
    command = [str(find_deno()), "bundle", str(folder / "index.ts"), "-o", str(made / "index.ts")]
    subprocess.run(command, env=plain_env(), capture_output=True, check=True)
    return made


def main() -> None:
    """Measures every kind of call on both versions of Deno."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", required=True, help="what was measured")
    parser.add_argument("--only", default="", help="calls whose name holds this text")
    parser.add_argument("--bundled", action="store_true", help="run what `deno bundle` makes")
    parser.add_argument("--dry-run", action="store_true", help="print the rows only")
    arguments = parser.parse_args()
    results = ROOT / "bench" / "results" / "supabase_functions.jsonl"
    with (
        tempfile.TemporaryDirectory() as made,
        running_cluster() as database,
        running_project(database) as project,
        running_box(accepted) as box,
    ):
        database.run(f"insert into auth.users (id) values ('{A}')")  # noqa: S608 - a constant
        database.run("update callme.settings set running = 100000, per_day = 100000")
        calls = Calls(project)
        folders = {
            name: FUNCTIONS / name for name in (FUNCTION.name, "predictions", "prediction_webhook")
        }
        if arguments.bundled:
            folders = {name: bundle(folder, Path(made)) for name, folder in folders.items()}
        for deno in (find_deno(), npm_binary(DENO_HOSTED, "deno")):
            version = "hosted 2.1.4" if "npm" in str(deno) else "pinned 2.9.8"
            for function, call, make in calls_of(calls):
                if arguments.only not in f"{function} {call}":
                    continue
                form = "bundled" if arguments.bundled else "files"
                row = {"deno": version, "form": form, "function": function, "call": call}
                row |= measure(folders[function], make, project, box, deno)
                print(json.dumps(row), flush=True)
                about = {
                    "commit": arguments.commit,
                    "machine": f"{os.uname().machine}, {os.cpu_count()} cores, CPU",
                    "at": datetime.now(UTC).date().isoformat(),
                    "load": str(round(os.getloadavg()[0], 1)),
                }
                if not arguments.dry_run:
                    with results.open("a") as out:
                        out.write(json.dumps({**about, **row}) + "\n")


if __name__ == "__main__":
    main()
