"""A model that prints without end: its log is bounded, its run and its cancel take no longer."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_service
from tests.e2e.test_hostile_bodies import memory_bytes
from tests.package_copies import packages_in
from tests.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
MOST_BYTES = (1 << 20) + (64 << 10) + 200
# Of the router, for a prediction's log: copies of it are on their way to the disk and to callers.
MOST_MEMORY_BYTES = 32 * MOST_BYTES
# A busy machine starts, prints and answers several times as slowly.
SLACK_S = 15.0


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the package that prints."""
    folder = tmp_path_factory.mktemp("loud")
    packages = packages_in(folder / "packages", "loud", "choir")
    with running_service(packages, folder / "state") as service:
        yield service


def begun(service: Service, **parts: object) -> str:
    """The URL of a prediction that runs."""
    files = {k: (None, str(v)) for k, v in parts.items()}
    made = service.http.post("/loud", files=files, headers=ASYNC)
    assert made.status_code == 202, made.text
    url = f"/predictions/{made.json()['id']}"
    wait_until(lambda: service.http.get(url).json()["status"] != "starting")
    return url


@pytest.mark.parametrize("end", ["well", "raise"])
def test_the_first_and_the_last_lines(loud: Service, end: str) -> None:
    """Of 200,000 lines, whatever the run's end is: both ends of the log, bounded, in the answer
    and on disk; and what is between is counted."""
    url = begun(loud, lines=200_000, end=end)
    done = wait_until(lambda: (p := loud.http.get(url).json())["completed_at"] and p)
    logs = done["logs"]
    assert len(logs.encode()) <= MOST_BYTES
    lines = logs.splitlines()
    assert lines[0].startswith("line 0 ")
    last = lines[-1]
    if end == "raise":  # where it was raised comes behind all that was printed
        assert last == "¦ RuntimeError: hoarse"
        last = next(line for line in reversed(lines) if not line.startswith("¦"))
    assert last.startswith("line 199999 ")
    kept = [line for line in lines if line.startswith("line ")]
    left_out = [int(line.split()[3]) for line in lines if line.startswith("[callme left out ")]
    assert len(left_out) == 1
    assert len(kept) + left_out[0] == 200_000
    assert stored_bytes(loud, done["id"]) < 1.1 * MOST_BYTES


def stored_bytes(service: Service, prediction_id: str) -> int:
    """How large its row is."""
    uri = f"file:{service.state / 'predictions.sqlite3'}?mode=ro"
    statement = "SELECT length(document) FROM predictions WHERE id = ?"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as c:
        return int(c.execute(statement, (prediction_id,)).fetchone()[0])


def test_a_loop_takes_no_longer_than_it_says(loud: Service) -> None:
    """coglet alone takes three times as long, to pass on what nobody reads; meanwhile others are
    answered, and the router keeps no more of it than its log may have."""
    begun(loud, lines=1)
    idle_bytes = memory_bytes(loud, "VmRSS")
    Path(f"/proc/{loud.child.pid}/clear_refs").write_text("5")  # VmHWM counts from here
    began = time.monotonic()
    url = begun(loud, seconds=6)
    waits = []
    while (p := loud.http.get(url).json())["completed_at"] is None:
        at = time.monotonic()
        assert loud.http.get("/health").status_code == 200
        waits.append(time.monotonic() - at)
        assert time.monotonic() - began < 6 + SLACK_S
    assert p["status"] == "succeeded"
    assert sorted(waits)[len(waits) // 2] < 0.2
    assert memory_bytes(loud, "VmHWM") - idle_bytes < MOST_MEMORY_BYTES


def test_a_cancel_is_heeded_at_once(loud: Service) -> None:
    """What it has printed before does not have to be passed on first; the process is the same."""
    url = begun(loud, seconds=60)
    wait_until(lambda: "[callme left out" in loud.http.get(url).json()["logs"])
    loads = loud.model("loud")["loads"]
    loud.http.post(f"{url}/cancel")
    wait_until(lambda: loud.http.get(url).json()["status"] == "canceled", 9)
    begun(loud, lines=1)
    assert loud.model("loud")["loads"] == loads


def test_several_at_once(loud: Service) -> None:
    """Four asynchronous runs print in turns, also within a line: each log has all of its own lines
    and nothing of another's."""
    inputs = [{"name": f"singer{n}", "lines": 4000, "at_once": 7} for n in range(4)]
    ask = partial(loud.http.post, "/models/choir/predictions", headers={"Prefer": "wait=60"})
    ask(json={"input": {"name": "first"}})  # from then on four may run
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda given: ask(json={"input": given}), inputs))
    ended = [answer.json() for answer in answers]
    assert all(a["started_at"] < b["completed_at"] for a in ended for b in ended)
    for given, prediction in zip(inputs, ended, strict=True):
        name = given["name"]
        expected = "".join(f"{name} {n} {name}'s end of {n}\n" for n in range(4000))
        assert prediction["logs"] == expected


def test_a_loud_set_up(tmp_path: Path) -> None:
    """A model that prints 60,000 lines before it fails: the answer has the reason, no more."""
    packages = packages_in(tmp_path / "packages", "loud")
    (packages / "callme.toml").write_text(
        '[models.loud.env]\nLOUD_SETUP_LINES = "60000"\nLOUD_SETUP_ERROR = "no voice"\n'
    )
    with running_service(packages, tmp_path / "state") as service:
        answer = service.http.post("/loud", files={"lines": (None, "1")})
        assert answer.status_code == 503, answer.text
        assert "no voice" in answer.json()["error"]["message"]
        assert len(answer.content) < 100_000
        logs = service.http.get("/models/loud/logs")
        assert len(logs.content) < 2 << 20
