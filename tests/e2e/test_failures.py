"""What dies is replaced, what waits is answered, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.service import ROOT, Service, kill, running_service
from tests.package_copies import copy_package
from tests.waiting import free_port, wait_until


def in_background(service: Service, path: str, **parts: str) -> tuple[threading.Thread, list[Any]]:
    """Post a form from a thread; its answer is put in the list."""
    answers: list[Any] = []

    def post() -> None:
        try:
            files = {k: (None, v) for k, v in parts.items()}
            answers.append(httpx.post(f"{service.url}{path}", files=files, timeout=240))
        except httpx.HTTPError as error:
            answers.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    return thread, answers


def busy(service: Service, model: str = "echo") -> bool:
    """True once a prediction runs."""
    return bool(service.model(model)["state"] == "busy")


def status_of(service: Service, prediction: Any) -> str:
    """Where the prediction is now."""
    return str(service.http.get(prediction["urls"]["get"]).json()["status"])


def test_a_worker_killed_in_mid_prediction(echo: Service) -> None:
    """kill -9 of the worker: that request gets a clear 5xx, the next one succeeds."""
    thread, answers = in_background(echo, "/echo", delay_s="60")
    wait_until(lambda: busy(echo))
    kill(echo.workers())
    thread.join(240)
    assert answers[0].status_code == 502, answers
    assert answers[0].json()["error"]["code"] == "worker_died"
    again = echo.http.post("/echo", files={"text": (None, "again")})
    assert again.status_code == 200
    assert again.json()["text"] == "again"
    assert echo.model("echo")["crashes"] >= 1


def test_a_worker_killed_while_idle(echo: Service) -> None:
    """It is noticed without a request, and the next request does not meet the corpse."""
    assert echo.http.post("/echo", files={"text": (None, "x")}).status_code == 200
    crashes = echo.model("echo")["crashes"]
    kill(echo.workers())
    wait_until(lambda: echo.model("echo")["crashes"] == crashes + 1)
    answer = echo.http.post("/echo", files={"text": (None, "alive")})
    assert answer.status_code == 200, answer.text


def test_a_server_killed_in_mid_prediction(echo: Service) -> None:
    """kill -9 of coglet itself: its worker goes too, and the request is answered."""
    thread, answers = in_background(echo, "/echo", delay_s="60")
    wait_until(lambda: busy(echo))
    workers = echo.workers()
    kill(echo.servers())
    thread.join(240)
    assert answers[0].status_code == 502, answers
    _, alive = psutil.wait_procs(workers, timeout=240)
    assert not alive
    assert echo.http.post("/echo", files={"text": (None, "x")}).status_code == 200


def test_predictions_of_one_model_run_one_after_the_other(echo: Service) -> None:
    """Eight at once are all answered, though the model takes one at a time."""
    running = [in_background(echo, "/echo", text=f"n{i}", delay_s="0.05") for i in range(8)]
    for thread, _ in running:
        thread.join(240)
    assert sorted(a[0].json()["text"] for _, a in running) == [f"n{i}" for i in range(8)]


def test_another_model_is_not_held_up(echo: Service) -> None:
    """While one model is busy, another answers."""
    long = echo.http.post(
        "/echo", files={"delay_s": (None, "250")}, headers={"Prefer": "respond-async"}
    )
    wait_until(lambda: busy(echo))
    answer = echo.http.post("/parrot", files={"text": (None, "hi")})
    assert answer.status_code == 200
    assert busy(echo)
    assert echo.http.post(f"{long.headers['location']}/cancel").status_code == 200
    wait_until(lambda: not busy(echo))


def test_a_client_that_leaves_cancels(echo: Service) -> None:
    """A disconnected synchronous call is canceled; the model is free for the next."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{echo.url}/echo", files={"delay_s": (None, "250")}, timeout=0.5)
    wait_until(lambda: not busy(echo))
    assert echo.http.post("/echo", files={"text": (None, "x")}).status_code == 200


def test_asynchronous_predictions(echo: Service) -> None:
    """Prefer: respond-async answers 202 at once; the result is there afterwards."""
    accepted = echo.http.post(
        "/echo", files={"text": (None, "later")}, headers={"Prefer": "respond-async"}
    )
    assert accepted.status_code == 202
    location = accepted.headers["location"]
    done = wait_until(lambda: (p := echo.http.get(location).json())["status"] == "succeeded" and p)
    assert done["output"]["text"] == "later"
    assert echo.http.get("/predictions/nosuch").status_code == 404


def test_cancel(echo: Service) -> None:
    """A running and a waiting prediction are canceled by POST."""
    headers = {"Prefer": "respond-async"}
    first = echo.http.post("/echo", files={"delay_s": (None, "60")}, headers=headers).json()
    second = echo.http.post("/echo", files={"delay_s": (None, "60")}, headers=headers).json()
    assert second["queue"]["position"] >= 1
    for p in (second, first):
        echo.http.post(p["urls"]["cancel"])
    wait_until(lambda: {status_of(echo, p) for p in (first, second)} == {"canceled"})


def test_a_call_that_outlasts_the_limit_becomes_asynchronous(
    echo_packages: Path, tmp_path: Path
) -> None:
    """202 with the same id, and the work goes on to its end."""
    with running_service(
        echo_packages, tmp_path / "state", {"CALLME_SYNC_LIMIT_S": "0.3"}
    ) as service:
        answer = service.http.post("/echo", files={"delay_s": (None, "1"), "text": (None, "t")})
        assert answer.status_code == 202, answer.text
        assert answer.json()["id"] == answer.headers["x-prediction-id"]
        location = answer.headers["location"]
        done = wait_until(
            lambda: (p := service.http.get(location).json())["status"] == "succeeded" and p
        )
        assert done["output"]["text"] == "t"


def test_full_queue(echo_packages: Path, tmp_path: Path) -> None:
    """429 with a Retry-After when as many wait as may."""
    env = {"CALLME_QUEUE_LIMIT": "1", "CALLME_SHUTDOWN_GRACE_S": "0.2"}
    with running_service(echo_packages, tmp_path / "state", env) as service:
        headers = {"Prefer": "respond-async"}

        def post() -> httpx.Response:
            files = {"delay_s": (None, "300")}
            return service.http.post("/echo", files=files, headers=headers)

        assert post().status_code == 202
        wait_until(lambda: busy(service))
        assert post().status_code == 202
        refused = post()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1


def test_a_set_up_that_fails(tmp_path: Path) -> None:
    """503 with the runner's own reason and a Retry-After; the other models are served."""
    packages = tmp_path / "packages"
    for name in ("broken", "sound"):
        copy_package("echo", packages / name)
    (packages / "callme.toml").write_text(
        '[models.broken.env]\nECHO_SETUP_ERROR = "no weights today"\n'
    )
    with running_service(packages, tmp_path / "state") as service:
        answer = service.http.post("/broken", files={"text": (None, "x")})
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "model_unavailable"
        assert "no weights today" in answer.json()["error"]["message"]
        assert int(answer.headers["retry-after"]) >= 1
        assert service.http.post("/sound", files={"text": (None, "x")}).status_code == 200


def steps(service: Service) -> list[str]:
    """Every start and stop of a model, in order, from the log."""
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    begun = ("model starting", "model stopping")
    return [f"{x['model']} {x['event'].split()[1]}" for x in lines if x["event"] in begun]


def test_models_share_memory(echo_packages: Path, tmp_path: Path) -> None:
    """With room for one, the idle one is evicted for the other, and comes back when asked."""
    env = {
        "CALLME_MEMORY_LIMIT_BYTES": str(200 << 20),
        # Assumed of a model until it has been measured: beside it no other has room.
        "CALLME_DEFAULT_FOOTPRINT_BYTES": str(190 << 20),
        "CALLME_MIN_RESIDENCY_S": "0",
    }
    with running_service(echo_packages, tmp_path / "state", env) as service:

        def post(name: str) -> None:
            assert service.http.post(f"/{name}", files={"text": (None, name)}).status_code == 200

        post("echo")
        assert 10 << 20 < service.model("echo")["memory_bytes"] < 100 << 20
        (evicted,) = service.servers()
        post("parrot")
        assert service.model("echo")["state"] == "stopped"
        assert evicted.pid not in {p.pid for p in service.servers()}
        assert len(service.servers()) == 1
        assert steps(service) == ["echo starting", "echo stopping", "parrot starting"]
        # Both have been measured now, and together they are small enough.
        post("echo")
        assert len(service.servers()) == 2
        assert [service.model(name)["evictions"] for name in ("echo", "parrot")] == [1, 0]


def test_ctrl_c_leaves_no_process(echo_packages: Path, tmp_path: Path) -> None:
    """SIGINT with a prediction under way: it is answered, and every process ends."""
    env = {"CALLME_SHUTDOWN_GRACE_S": "0.5"}
    with running_service(echo_packages, tmp_path / "state", env) as service:
        thread, answers = in_background(service, "/echo", delay_s="60")
        wait_until(lambda: busy(service))
        assert service.stop(signal.SIGINT) in (0, -signal.SIGINT)  # long before delay_s is over
        thread.join(240)
        assert answers[0].status_code == 503, answers
        assert answers[0].json()["error"]["code"] == "shutting_down"
        assert service.spooled() == []


def test_ctrl_c_during_set_up(tmp_path: Path) -> None:
    """A model that is still loading is ended too."""
    packages = tmp_path / "packages"
    copy_package("echo", packages / "slow")
    env = {"ECHO_SETUP_S": "60"}
    with running_service(packages, tmp_path / "state", env) as service:
        thread, _ = in_background(service, "/slow", text="x")
        wait_until(lambda: service.model("slow")["state"] == "starting" and service.workers())
        service.stop(signal.SIGINT)
        thread.join(240)


def test_kill_9_of_the_router(echo_packages: Path, tmp_path: Path) -> None:
    """Its models end with it; after a restart every accepted prediction is run to its end."""
    state = tmp_path / "state"
    with running_service(echo_packages, state) as service:
        headers = {"Prefer": "respond-async"}
        accepted = [
            service.http.post(
                "/echo",
                files={"text": (None, f"n{i}"), "delay_s": (None, "0.1"), "file": ("f", b"123")},
                headers=headers,
            ).json()["id"]
            for i in range(20)
        ]
        wait_until(lambda: busy(service))
        children = service.descendants()
        service.child.kill()
        service.child.wait()
        _, alive = psutil.wait_procs(children, timeout=240)
        assert not alive
    with running_service(echo_packages, state) as service:

        def finished() -> bool:
            views = [service.http.get(f"/predictions/{i}").json() for i in accepted]
            return all(v["status"] == "succeeded" for v in views)

        wait_until(finished)
        texts = {service.http.get(f"/predictions/{i}").json()["output"]["text"] for i in accepted}
        assert texts == {f"n{i}" for i in range(20)}
        assert service.spooled() == []


def test_two_routers_never_share_a_state_folder(echo: Service, echo_packages: Path) -> None:
    """The second says so and ends."""
    import subprocess
    import sys

    env = {
        **os.environ,
        "CALLME_PACKAGES_DIR": str(echo_packages),
        "CALLME_STATE_DIR": str(echo.state),
    }
    second = subprocess.run(
        [sys.executable, "-m", "router.cli", "serve", "--port", str(free_port())],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert second.returncode != 0
    assert "another router uses this state folder" in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr


def test_a_worker_killed_in_set_up(tmp_path: Path) -> None:
    """coglet would stay STARTING; here the waiting request fails, and the next succeeds."""
    packages = tmp_path / "packages"
    copy_package("echo", packages / "slow")
    (packages / "callme.toml").write_text('[models.slow.env]\nECHO_SETUP_S = "2"\n')
    with running_service(packages, tmp_path / "state") as service:
        thread, answers = in_background(service, "/slow", text="x")
        wait_until(service.workers)
        kill(service.workers())
        thread.join(240)
        assert answers[0].status_code == 503, answers
        assert "during set-up" in answers[0].json()["error"]["message"]
        files = {"text": (None, "x")}
        wait_until(lambda: service.http.post("/slow", files=files).status_code == 200)


def test_an_upload_that_never_ends_does_not_hold_up_the_end(
    echo_packages: Path, tmp_path: Path
) -> None:
    """SIGTERM with half a body on the wire: the service ends at once, with nothing left."""
    with running_service(echo_packages, tmp_path / "state") as service:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx'
            s.sendall(
                b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part
            )
            wait_until(service.spooled)
            # A silent body is given up after 30 s; the end does not wait for that.
            service.stop(signal.SIGTERM, timeout_s=20)
        assert service.spooled() == []


def test_a_client_that_does_not_read_does_not_hold_up_the_end(
    echo_packages: Path, tmp_path: Path
) -> None:
    """It has asked for more than any buffer holds; the service gives it up when it stops."""
    env = {"CALLME_SHUTDOWN_GRACE_S": "0.5"}
    with running_service(echo_packages, tmp_path / "state", env) as service:
        assert service.http.post("/echo", files={"text": (None, "x")}).status_code == 200
        size = len(service.http.get("/openapi.json").content)
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            s.sendall(one * ((16 << 20) // size))
            wait_until(lambda: b"200 OK" in s.recv(100, socket.MSG_PEEK))
            service.stop(signal.SIGINT, timeout_s=60)


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("/echo", {"files": {"file": (None, "http://[::1")}}),
    ("/echo", {"files": {"file": (None, "http://\u2100.com/")}}),
    ("/echo", {"files": {"tags": (None, "[" * 900 + "]" * 900)}}),
    ("/echo", {"files": {"tags": (None, "[" + "1," * 200_000 + "1]")}}),
    (
        "/echo",
        {
            "content": b"x",
            "headers": {"content-type": "multipart/form-data; boundary=" + "b" * 999},
        },
    ),
    ("/models/echo/predictions", {"json": {"input": {"tags": [1] * 1_000_000}}}),
    ("/models/echo/predictions", {"json": {"input": {"file": "http://[::1"}}}),
]


@pytest.mark.parametrize(("path", "request_parts"), HOSTILE)
def test_what_an_attacker_sends(echo: Service, path: str, request_parts: dict[str, Any]) -> None:
    """A 4xx, soon; the service answers others meanwhile and leaves nothing behind."""
    answer = echo.http.post(path, **request_parts)
    assert 400 <= answer.status_code < 500, answer.text
    assert echo.http.get("/health").status_code == 200
    assert echo.spooled() == []


def test_deep_json_and_trailing_slashes(echo: Service) -> None:
    """A 4xx in the one shape: no 500 from what cannot be written again, no redirect."""
    deep = '{"input":{"text":"x","zzz":' + "[" * 300 + "]" * 300 + "}}"
    headers = {"content-type": "application/json"}
    answer = echo.http.put("/models/echo/predictions/deep", content=deep, headers=headers)
    assert answer.status_code == 400, answer.text
    slash = echo.http.post("/echo/", files={"text": (None, "x")})
    assert (slash.status_code, slash.json()["error"]["code"]) == (404, "not_found")


def test_a_database_that_is_none(echo_packages: Path, tmp_path: Path) -> None:
    """The service says which file, and what to do; it does not start on it."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "predictions.sqlite3").write_bytes(b"this is no database" * 100)
    with (
        pytest.raises(AssertionError, match="move it away"),
        running_service(echo_packages, state),
    ):
        pass
