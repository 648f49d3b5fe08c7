"""Two versions of a model side by side, on the real service with real processes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from router.cli import app
from tests.e2e.service import Service, running_service
from tests.waiting import wait_until

RUN = """
import time

from cog import BaseRunner, Input


class Runner(BaseRunner):
    def run(self, text: str = Input(default=""), seconds: float = Input(default=0.0)) -> str:
        time.sleep(seconds)
        return "VERSION"
"""
REQUESTS, CLIENTS = 2000, 8
VERSIONS = ("greet", "greet@next")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A box with `greet` and `greet@next`, which is a link into another checkout."""
    root = tmp_path_factory.mktemp("versions")
    packages, worktree = root / "packages", root / "worktree" / "greet"
    for folder, version in ((packages / "greet", "old"), (worktree, "new")):
        folder.mkdir(parents=True)
        (folder / "run.py").write_text(RUN.replace("VERSION", version))
        (folder / "cog.yaml").write_text('build:\n  python_version: "3.11"\nrun: "run.py:Runner"\n')
    (packages / "greet@next").symlink_to(worktree)
    (packages / "callme.toml").write_text('[models.greet]\ncanary = "greet@next"\nshare = 0.1\n')
    with running_service(packages, root / "state") as service:
        for name in ("greet", "greet@next"):
            assert service.http.post(f"/models/{name}/load").status_code == 202
        wait_until(lambda: all(service.model(n)["state"] == "ready" for n in VERSIONS))
        wait_until(lambda: service.model("greet")["canary"]["usable"])  # its schema is known
        yield service


def ask(box: Service, **inputs: Any) -> str:
    """The version that answers a request for `greet`."""
    answer = box.http.post("/models/greet/predictions", json={"input": inputs})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "succeeded"), body
    return str(body["output"])


def callme(box: Service, *arguments: str) -> str:
    """What the command prints."""
    key = (box.state / "local_key").read_text().strip()
    done = CliRunner().invoke(app, [*arguments, "--url", box.url, "--key", key])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_shares_over_2000_requests(box: Service) -> None:
    """By several clients at a time: not only within 2 %, but to the request. /status and `callme
    status` compare both."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        asked = Counter(clients.map(lambda _: ask(box), range(REQUESTS)))
    assert asked == {"old": 0.9 * REQUESTS, "new": 0.1 * REQUESTS}
    canary = box.model("greet")["canary"]
    assert (canary["share"], canary["sent"]) == (0.1, asked["new"])
    for name, version in (("greet", "old"), ("greet@next", "new")):
        compared = canary["compared"][name]
        assert (compared["succeeded"], compared["failed"]) == (asked[version], 0)
        assert 0 < compared["run_p50_s"] <= compared["run_p95_s"]
    assert f"10% of greet to greet@next; greet: 0 of {asked['old']} failed" in callme(box, "status")


def test_a_version_that_is_named(box: Service) -> None:
    """By its path, and by Replicate's `version`: its id, or its name."""
    for name, output in (("greet", "old"), ("greet@next", "new")):
        named = {n: box.http.get(f"/v1/models/callme/{n}").json() for n in VERSIONS}
        version = named[name]["latest_version"]["id"]
        short = {"greet@next": ["callme/greet:next"]}.get(name, [])
        for reference in (version, f"callme/greet:{version}", *short):
            body = {"version": reference, "input": {}}
            headers = {"Prefer": "wait"}
            for _ in range(12):  # a share would show in some of them
                made = box.http.post("/v1/predictions", json=body, headers=headers).json()
                assert made["output"] == output, (reference, made)
    assert box.http.post("/greet@next", files={"text": (None, "x")}).json() == "new"
    listed = box.http.get("/v1/models/callme/greet/versions").json()["results"]
    assert len({version["id"] for version in listed}) == 2
    assert [m["name"] for m in box.http.get("/v1/models").json()["results"]] == ["greet"]
    assert "/greet@next" not in box.http.get("/openapi.json").json()["paths"]


def test_an_id_never_runs_twice_on_two_versions(box: Service) -> None:
    """A PUT that is repeated finds its prediction, whichever version has run it."""
    for number in range(12):
        path, body = f"/models/greet/predictions/put-{number}", {"input": {"text": "a"}}
        first, second = (box.http.put(path, json=body).json() for _ in "ab")
        assert first["output"] == second["output"]
        assert first["completed_at"] == second["completed_at"]
        assert box.http.get(path).json()["output"] == first["output"]


def test_promote_and_rollback_under_load(box: Service) -> None:
    """No request fails and none that runs is lost. Each turn counts from the next request on."""
    stop = threading.Event()
    serving = ""  # the version of a request that is made now; "" while that is being changed
    answers: Counter[tuple[str, str]] = Counter()

    def client() -> None:
        while not stop.is_set():
            expected = serving
            answers[expected, ask(box, seconds=0.01)] += 1

    with ThreadPoolExecutor(CLIENTS) as clients:
        running = [clients.submit(client) for _ in range(CLIENTS)]
        try:
            for _ in range(3):
                for verb, name, version in (
                    ("promote", "greet@next", "new"),
                    ("rollback", "greet", "old"),
                ):
                    assert f"{name} serves all requests for greet" in callme(box, verb, "greet")
                    serving, seen = version, answers.total()
                    wait_until(lambda n=seen: answers.total() > n + 40)  # type: ignore[misc]
                    serving = ""
        finally:
            stop.set()
        for future in running:
            future.result()
    assert answers["new", "new"] > 30
    assert answers["old", "old"] > 30
    assert not answers["new", "old"] + answers["old", "new"], answers
    assert box.model("greet")["canary"]["compared"]["greet@next"]["failed"] == 0
    loads = {name: box.model(name)["loads"] for name in VERSIONS}
    assert loads == {"greet": 1, "greet@next": 1}, "a turn restarts nothing"


def test_a_model_without_a_canary(box: Service) -> None:
    """It is refused with what to set."""
    key = (box.state / "local_key").read_text().strip()
    refused = httpx.post(
        f"{box.url}/models/greet@next/promote", headers={"Authorization": f"Bearer {key}"}
    )
    assert refused.status_code == 405
    assert "set canary under [models.greet@next]" in refused.text
