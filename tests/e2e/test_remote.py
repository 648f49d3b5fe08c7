"""A router whose models run on another box: real routers, real coglets, three APIs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import signal
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import orjson
import pytest
from replicate.client import Client

from tests.e2e.remote_boxes import BOX_KEY, cog_remote, front
from tests.e2e.service import Service, running_service
from tests.edge.example_page import serving
from tests.waiting import free_port, wait_until

PATHS = "/far", "/once"
HASTY = {"CALLME_SHUTDOWN_GRACE_S": "0.2"}


@pytest.fixture(scope="module")
def box(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The second box. It wants a key."""
    state = tmp_path_factory.mktemp("box") / "state"
    with running_service(echo_packages, state, {"CALLME_KEYS": f"front:{BOX_KEY}"}) as service:
        service.http.headers["Authorization"] = f"Bearer {BOX_KEY}"
        yield service


@pytest.fixture(scope="module")
def far(box: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A router with no package at all: `far` is echo on the box, `cloud` the same through
    Replicate's API."""
    cloud = f"""
[models.cloud]
backend = "replicate"
[models.cloud.remote]
url = "{box.url}"
model = "callme/parrot"
key = "{BOX_KEY}"
"""
    with front(tmp_path_factory.mktemp("far"), cog_remote("far", box.url) + cloud) as service:
        yield service


@pytest.mark.parametrize("name", ["far", "cloud"])
def test_the_apps_api(far: Service, name: str) -> None:
    """Text converted by the schema, a file with its ending, the model's own JSON."""
    body = bytes(range(256)) * 4096  # over Replicate's 256 KiB: uploaded first
    files = {"text": (None, "hi"), "number": (None, "0.25"), "file": ("photo.PNG", body)}
    answer = far.http.post(f"/{name}", files=files)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["text"], said["number"], said["file_suffix"]) == ("hi", 0.25, ".png")
    assert said["file_sha256"] == hashlib.sha256(body).hexdigest()
    assert far.spooled() == []


@pytest.mark.parametrize("name", ["far", "cloud"])
def test_errors_are_the_same(far: Service, name: str) -> None:
    """The router's own check, the model's objection, the model's exception."""
    for parts, status, code in (
        ({"number": (None, "7")}, 422, "invalid_input"),
        ({"nosuch": (None, "7")}, 422, "invalid_input"),
        ({"mode": (None, "invalid")}, 422, "invalid_input"),
        ({"mode": (None, "raise")}, 500, "prediction_failed"),
    ):
        answer = far.http.post(f"/{name}", files=parts)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert "Traceback" not in answer.text


def test_cogs_face_and_the_id(far: Service, box: Service) -> None:
    """A prediction has one id, at the client, here and on the box; /status tells where it ran."""
    assert far.http.get("/models/far/health-check").json()["status"] == "READY"
    answer = far.http.put("/models/far/predictions/mine-1", json={"input": {"text": "x"}})
    assert (answer.status_code, answer.json()["id"]) == (200, "mine-1")
    there = box.http.get("/models/echo/predictions/mine-1").json()
    assert there["output"] == answer.json()["output"]
    view = far.model("far")
    assert view["backend"] == "cog"
    assert "mine-1" in view["last_served"]
    assert view["served"] >= 1


def test_replicates_own_client(far: Service) -> None:
    """Through this box's API to the same API of another box."""
    client = Client(api_token="none", base_url=far.url)  # noqa: S106
    output: Any = client.run("callme/cloud", input={"text": "there"})
    assert output["text"] == "there"
    assert far.model("cloud")["backend"] == "replicate"


def test_retry_after_of_a_refusal(tmp_path: Path) -> None:
    """What the machine that runs the model says reaches the caller in all three APIs."""
    with busy_back_end(retry_after_s=3600) as url, front(tmp_path, cog_remote("far", url)) as here:
        calls = (
            ("/far", {"files": {"text": (None, "hi")}}, 503),
            ("/models/far/predictions", {"json": {"input": {"text": "hi"}}}, 200),
            ("/v1/models/me/far/predictions", {"json": {"input": {"text": "hi"}}}, 201),
        )
        for path, body, status in calls:
            answer = here.http.post(path, headers={"Prefer": "wait"}, **body)
            assert answer.status_code == status, answer.text
            assert "takes no prediction now: full up" in answer.text
            assert answer.headers["retry-after"] == "3600"


@contextlib.contextmanager
def busy_back_end(retry_after_s: int) -> Iterator[str]:
    """A Cog server that is there and takes no prediction; its URL."""
    inputs = {"Input": {"properties": {"text": {"type": "string"}}}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_health = self.path.endswith("/health-check")
            answer: dict[str, Any] = {"status": "READY"} if is_health else {}
            self._say(200, answer or {"components": {"schemas": inputs}})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._say(429, {"error": {"code": "queue_full", "message": "full up"}})

        def _say(self, status: int, answer: dict[str, Any]) -> None:
            body = orjson.dumps(answer)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if status != 200:
                self.send_header("retry-after", str(retry_after_s))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    with serving(Handler) as url:
        yield url


def test_it_follows_and_cancels(far: Service, box: Service) -> None:
    """Asynchronous here, running there; a cancel goes all the way."""
    for name, there in (("far", "echo"), ("cloud", "parrot")):
        answer = far.http.post(
            f"/{name}", files={"delay_s": (None, "300")}, headers={"Prefer": "respond-async"}
        )
        assert answer.status_code == 202
        mine = answer.json()["id"]
        wait_until(partial(_runs, box, there))
        far.http.post(f"/predictions/{mine}/cancel")
        wait_until(partial(_is_canceled, far, mine))
        wait_until(partial(_is_idle, box, there))


def _is_canceled(service: Service, prediction_id: str) -> bool:
    return bool(service.http.get(f"/predictions/{prediction_id}").json()["status"] == "canceled")


def _runs(service: Service, model: str) -> bool:
    return bool(service.model(model)["running"])


def _is_idle(service: Service, model: str) -> bool:
    return not _runs(service, model)


def test_a_burst_goes_through(far: Service) -> None:
    """Forty at once, four at a time: every answer is its own."""
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        texts = [str(n) for n in range(40)]
        asked = [pool.submit(far.http.post, "/far", files={"text": (None, t)}) for t in texts]
        assert [a.result().json()["text"] for a in asked] == texts


def test_overflow(box: Service, tmp_path: Path) -> None:
    """The box first. When people would wait too long, the other one; every id is kept."""
    toml = cog_remote("echo", box.url, "overflow_after_s = 0.5", backend="overflow")
    with front(tmp_path, toml, with_echo=True) as service:
        service.http.post("/echo", files={"text": (None, "first")})
        # If it was cold and the first ran there, it is loaded for the next one meanwhile.
        wait_until(lambda: service.model("echo")["state"] == "ready")
        here = service.http.post("/echo", files={"text": (None, "second")})
        assert here.headers["x-prediction-id"] in service.model("echo")["last_served"]
        before = service.model("echo@cog")["served"]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            parts = {"delay_s": (None, "1.5")}
            asked = [pool.submit(service.http.post, "/echo", files=parts) for _ in range(6)]
            answers = [a.result() for a in asked]
        assert {a.status_code for a in answers} == {200}
        there = service.model("echo@cog")
        assert there["backend"] == "cog"
        assert 1 <= there["served"] - before < 6
        ids = {a.headers["x-prediction-id"] for a in answers}
        for prediction_id in set(there["last_served"]) & ids:
            assert box.http.get(f"/predictions/{prediction_id}").status_code == 200


def test_overflow_when_it_cannot_start_here(box: Service, tmp_path: Path) -> None:
    """Its set-up fails here: nobody notices."""
    toml = cog_remote("echo", box.url, "env = { ECHO_SETUP_ERROR = 'no' }", backend="overflow")
    with front(tmp_path, toml, with_echo=True) as service:
        for n in range(3):
            answer = service.http.post("/echo", files={"text": (None, str(n))})
            assert (answer.status_code, answer.json().get("text")) == (200, str(n)), answer.text
        assert service.model("echo@cog")["served"] == 3
        assert service.model("echo")["served"] == 0


def test_a_box_that_dies_and_comes_back(echo_packages: Path, tmp_path: Path) -> None:
    """What it had begun is 503 with a time, and 502 where it may not run twice; what comes then
    is 503 with a time; when it is back, all is as before."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    toml = cog_remote("far", url) + cog_remote("once", url) + "repeatable = false\n"
    with front(tmp_path / "front", toml) as service:
        down = service.http.post("/far", files={"text": (None, "x")})
        assert (down.status_code, down.json()["error"]["code"]) == (503, "model_unavailable")
        assert int(down.headers["retry-after"]) >= 1
        with second_box(echo_packages, tmp_path / "box", port) as box:
            # Each waits for a time of its own before it asks the box again.
            wait_until(lambda: all(_post(service, path).status_code == 200 for path in PATHS))
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                parts = {"delay_s": (None, "300")}
                asked = [pool.submit(service.http.post, path, files=parts) for path in PATHS]
                wait_until(lambda: box.model("echo")["running"] and box.model("echo")["queue"])
                box.child.send_signal(signal.SIGKILL)
                box.child.wait()
                far, once = (a.result() for a in asked)
            assert (far.status_code, far.json()["error"]["code"]) == (503, "model_unavailable")
            assert int(far.headers["retry-after"]) >= 1
            assert (once.status_code, once.json()["error"]["code"]) == (502, "backend_failed")
        began = time.monotonic()
        while (gone := _post(service)).status_code != 503:
            assert gone.status_code == 502
            assert time.monotonic() - began < 60
        assert int(gone.headers["retry-after"]) >= 1
        with second_box(echo_packages, tmp_path / "again", port):
            wait_until(lambda: _post(service).status_code == 200)


def _post(service: Service, path: str = "/far") -> Any:
    return service.http.post(path, files={"text": (None, "x")})


@contextlib.contextmanager
def second_box(packages: Path, folder: Path, port: int) -> Iterator[Service]:
    """A box on a port that is known before."""
    keys = {"CALLME_KEYS": BOX_KEY}
    with running_service(packages, folder / "state", keys, port=port) as service:
        service.http.headers["Authorization"] = f"Bearer {BOX_KEY}"
        yield service


def test_a_restart_takes_up_what_runs_there(box: Service, tmp_path: Path) -> None:
    """Asynchronous predictions outlive the router; the box runs each once, under its one id."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "callme.toml").write_text(cog_remote("far", box.url))
    parts = {"text": (None, "once"), "delay_s": (None, "6")}
    with running_service(packages, tmp_path / "state", HASTY) as before:
        wanted = before.http.post("/far", files=parts, headers={"Prefer": "respond-async"}).json()
        wait_until(lambda: wanted["id"] in box.model("echo")["running"])
    with running_service(packages, tmp_path / "state", HASTY) as after:
        path = f"/predictions/{wanted['id']}"
        wait_until(lambda: after.http.get(path).json()["status"] == "succeeded")
        assert after.http.get(path).json()["output"]["text"] == "once"
    assert box.model("echo")["last_served"].count(wanted["id"]) == 1


def test_a_restart_runs_nothing_twice(box: Service, tmp_path: Path) -> None:
    """What was sent to the remote is fetched from there, though this box is free now."""
    toml = partial(cog_remote, "echo", box.url, backend="overflow")
    with front(tmp_path, toml("overflow_after_s = 0.5"), HASTY, with_echo=True) as before:
        before.http.post("/echo", files={"text": (None, "first")})
        wait_until(lambda: before.model("echo")["state"] == "ready")
        later = {"Prefer": "respond-async"}
        here = before.http.post("/echo", files={"delay_s": (None, "300")}, headers=later).json()
        parts = {"text": (None, "once"), "delay_s": (None, "8")}
        wanted = before.http.post("/echo", files=parts, headers=later).json()
        wait_until(lambda: wanted["id"] in box.model("echo")["running"])
        before.http.post(f"/predictions/{here['id']}/cancel")
    packages = tmp_path / "packages"
    (packages / "callme.toml").write_text(toml("overflow_after_s = 3600"))
    with running_service(packages, tmp_path / "state", HASTY) as after:
        path = f"/predictions/{wanted['id']}"
        wait_until(lambda: after.http.get(path).json()["status"] == "succeeded")
        assert after.http.get(path).json()["output"]["text"] == "once"
        assert after.model("echo")["served"] == 0
        assert after.model("echo@cog")["last_served"] == [wanted["id"]]
    assert box.model("echo")["last_served"].count(wanted["id"]) == 1


def test_the_cost_guard(box: Service, tmp_path: Path) -> None:
    """Two an hour and no more: the third is told when, and never leaves this box."""
    toml = cog_remote("far", box.url) + "requests_per_hour = 2\n"
    with front(tmp_path, toml) as service:
        assert [_post(service).status_code for _ in range(2)] == [200, 200]
        third = wait_until(lambda: (a := _post(service)).status_code == 503 and a)
        assert "2 requests of this hour are used" in third.json()["error"]["message"]
        assert int(third.headers["retry-after"]) >= 1
        assert service.model("far")["served"] == 2
