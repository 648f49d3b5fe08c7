"""What Cog documents for its HTTP server holds under /models/{model}."""

from __future__ import annotations

import base64
import hashlib
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.prediction import new_id
from tests.e2e.service import Service, running_service
from tests.package_copies import copy_package
from tests.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
PREDICTIONS = "/models/echo/predictions"


def post(echo: Service, *, headers: dict[str, str] | None = None, **inputs: Any) -> httpx.Response:
    """POST a prediction of the echo model."""
    return echo.http.post(PREDICTIONS, json={"input": inputs}, headers=headers)


def ended(echo: Service, prediction_id: str) -> dict[str, Any]:
    """The prediction once it has ended."""

    def view() -> dict[str, Any] | None:
        p: dict[str, Any] = echo.http.get(f"{PREDICTIONS}/{prediction_id}").json()
        return p if p["status"] not in ("starting", "processing") else None

    found: dict[str, Any] = wait_until(view)
    return found


def test_sync(echo: Service) -> None:
    """200 with output, logs and metrics."""
    answer = post(echo, text="hi", number=0.25, tags=["a"])
    assert answer.status_code == 200, answer.text
    p = answer.json()
    assert (p["status"], p["output"]["text"], p["output"]["number"]) == ("succeeded", "hi", 0.25)
    assert p["input"] == {"text": "hi", "number": 0.25, "tags": ["a"]}
    assert p["error"] is None
    assert "echo hi ['a']" in p["logs"]
    assert p["metrics"]["predict_time"] >= 0
    assert echo.http.post(PREDICTIONS).json()["output"]["text"] == "hello"


def test_a_run_that_raises(echo: Service) -> None:
    """200 with status failed and the runner's words, no path and no trace."""
    answer = post(echo, mode="raise")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert "RuntimeError: boom in run.py" in answer.json()["error"]
    assert answer.json()["output"] is None
    objection = post(echo, mode="invalid")
    assert (objection.status_code, objection.json()["status"]) == (200, "failed")
    assert "not to my taste" in objection.json()["error"]


def test_async(echo: Service) -> None:
    """202 with id and status; GET tells the end."""
    answer = post(echo, headers=ASYNC, text="later")
    assert answer.status_code == 202
    assert answer.json()["status"] in ("starting", "processing")
    location = f"{PREDICTIONS}/{answer.json()['id']}"
    assert answer.headers["location"] == location
    assert ended(echo, answer.json()["id"])["output"]["text"] == "later"
    assert echo.http.get(f"/models/parrot/predictions/{answer.json()['id']}").status_code == 404


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"number": 2}, "number"),
        ({"number": "0.5"}, "number"),
        ({"mode": "sing"}, "mode"),
        ({"text": None}, "text"),
        ({"file": "/etc/passwd"}, "file"),
        ({"file": "file:///etc/passwd"}, "file"),
        ({"file": "http://127.0.0.1:1/x"}, "file"),
        ({"file": "data:no-comma"}, "file"),
    ],
)
def test_what_the_schema_refuses(echo: Service, inputs: dict[str, Any], field: str) -> None:
    """422 with a `detail` list that names the input, as Cog's."""
    answer = post(echo, **inputs)
    assert answer.status_code == 422, answer.text
    assert [d["loc"] for d in answer.json()["detail"]] == [["body", "input", field]]
    assert all(d["msg"] and d["type"] for d in answer.json()["detail"])
    assert echo.spooled() == []


def test_bodies(echo: Service) -> None:
    """400, 413, 415 and 422 for what is no request; unknown inputs are dropped, as by Cog."""
    for content, kind, status in (
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"input": 1}', "application/json", 422),
        (b'{"id": "../x", "input": {}}', "application/json", 422),
        (b"text=x", "application/x-www-form-urlencoded", 415),
        (b'"' + b"x" * (26 << 20) + b'"', "application/json", 413),
    ):
        answer = echo.http.post(PREDICTIONS, content=content, headers={"content-type": kind})
        assert answer.status_code == status, (content[:40], answer.text)
    assert post(echo, nosuch=1).status_code == 200
    assert post(echo, headers={"Accept": "text/event-stream"}).status_code == 406
    assert echo.http.post("/models/nosuch/predictions", json={}).status_code == 404
    assert echo.http.post("/models/echo/trainings", json={"input": {}}).status_code == 404


def test_a_file_as_a_data_uri(echo: Service) -> None:
    """It reaches the runner as a path, byte for byte; nothing stays in the spool."""
    body = bytes(range(256)) * 999
    uri = f"data:image/png;base64,{base64.b64encode(body).decode()}"
    output = post(echo, file=uri).json()["output"]
    assert output["file_sha256"] == hashlib.sha256(body).hexdigest()
    assert output["file_suffix"] == ".png"
    assert echo.spooled() == []


def test_put_is_idempotent_after(echo: Service) -> None:
    """A second PUT of the id gives the first one's result: it did not run again."""
    path = f"{PREDICTIONS}/{new_id()}"
    body = {"input": {"text": "once", "tags": []}}
    first = echo.http.put(path, json=body)
    assert (first.status_code, first.json()["status"]) == (200, "succeeded")
    again = echo.http.put(path, json={"input": {"tags": [], "text": "once"}})
    assert (again.status_code, again.json()) == (200, first.json())
    for other in (
        echo.http.put(path, json={"input": {"text": "twice"}}),
        echo.http.put(path.replace("echo", "parrot"), json=body),
    ):
        assert (other.status_code, other.json()["error"]["code"]) == (409, "id_conflict")


def test_put_is_idempotent_during(echo: Service) -> None:
    """Ten at once are one run; one that comes while it runs gets 202 and its state."""
    path = f"{PREDICTIONS}/{new_id()}"
    body = {"input": {"text": "alone", "delay_s": 1, "file": "data:,x"}}
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.put(f"{echo.url}{path}", json=body)))
        for _ in range(10)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(240)
    codes = [a.status_code for a in answers]
    assert len(codes) == 10
    assert sorted(codes)[0] == 200
    assert set(codes) <= {200, 202}
    assert codes.count(200) == 1
    view = echo.model("echo")
    assert view["running"] == []
    assert view["queue"] == []
    assert echo.http.put(path, json=body).json()["output"]["text"] == "alone"


def test_put_survives_a_lost_connection(echo: Service) -> None:
    """The client goes away, asks again and gets the one result."""
    prediction_id = new_id()
    body = {"input": {"text": "kept", "delay_s": 1}}
    url = f"{PREDICTIONS}/{prediction_id}"
    with pytest.raises(httpx.ReadTimeout):
        httpx.put(f"{echo.url}{url}", json=body, timeout=0.3)
    assert echo.http.put(url, json=body, headers=ASYNC).status_code == 202
    assert ended(echo, prediction_id)["output"]["text"] == "kept"


def test_ids(echo: Service) -> None:
    """An id of the client's must be a plain word, and the body's must be the URL's."""
    assert echo.http.put(f"{PREDICTIONS}/a.b", json={"input": {}}).status_code == 422
    mismatch = echo.http.put(f"{PREDICTIONS}/one", json={"id": "two", "input": {}})
    assert mismatch.json()["detail"][0]["loc"] == ["body", "id"]
    named = echo.http.post(PREDICTIONS, json={"id": "mine", "input": {}})
    assert (named.status_code, named.json()["id"]) == (200, "mine")
    assert echo.http.get(f"{PREDICTIONS}/mine").json() == named.json()


def test_cancel(echo: Service) -> None:
    """200 and {}; the prediction ends as canceled. 404 when there is none."""
    running = post(echo, headers=ASYNC, delay_s=60).json()
    waiting = post(echo, headers=ASYNC, delay_s=60).json()
    for p in (waiting, running):
        answer = echo.http.post(f"{PREDICTIONS}/{p['id']}/cancel")
        assert (answer.status_code, answer.json()) == (200, {})
        assert ended(echo, p["id"])["status"] == "canceled"
    assert echo.http.post(f"{PREDICTIONS}/nosuch/cancel").status_code == 404


def test_cancel_after(echo: Service) -> None:
    """A running one is canceled at its deadline; one that still waits never runs."""
    running = post(echo, headers={**ASYNC, "Cancel-After": "0.5s"}, delay_s=60).json()
    waiting = post(echo, headers={**ASYNC, "Cancel-After": "0.1"}, delay_s=60).json()
    for p in (waiting, running):
        end = ended(echo, p["id"])
        assert end["status"] == "canceled"
        assert "deadline" in end["error"]
    app_view = echo.http.get(f"/predictions/{waiting['id']}").json()
    assert (app_view["status"], app_view["started_at"]) == ("aborted", None)
    assert post(echo, headers={"Cancel-After": "soon"}).status_code == 400
    by_form = echo.http.post(
        "/echo", files={"delay_s": (None, "60")}, headers={"Cancel-After": "0.2"}
    )
    assert (by_form.status_code, by_form.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_health_check(echo: Service) -> None:
    """Always 200, in Cog's words; a model that is not loaded is ready to be asked."""
    assert post(echo, text="warm").status_code == 200
    health = echo.http.get("/models/echo/health-check")
    assert (health.status_code, health.json()["status"]) == (200, "READY")
    assert health.json()["setup"]["status"] == "succeeded"
    assert health.json()["version"]["coglet"]
    p = post(echo, headers=ASYNC, delay_s=60).json()
    wait_until(lambda: echo.http.get("/models/echo/health-check").json()["status"] == "BUSY")
    echo.http.post(f"{PREDICTIONS}/{p['id']}/cancel")
    ended(echo, p["id"])
    assert echo.http.get("/models/nosuch/health-check").status_code == 404


def test_schema_and_index(echo: Service) -> None:
    """The model's own schema, without trainings, and where everything is."""
    schema = echo.http.get("/models/echo/openapi.json").json()
    assert schema["components"]["schemas"]["Input"]["properties"]["number"]["maximum"] == 1
    assert schema["servers"] == [{"url": "/models/echo"}]
    assert "/predictions" in schema["paths"]
    assert not [p for p in schema["paths"] if "training" in p]
    index = echo.http.get("/models/echo").json()
    assert echo.http.get(index["healthcheck_url"]).status_code == 200
    assert echo.http.get(index["openapi_url"]).status_code == 200


def test_a_set_up_that_fails_and_a_file_that_comes_out(tmp_path: Path) -> None:
    """SETUP_FAILED with the log of it; an output file is a data: URI."""
    packages = tmp_path / "packages"
    for source, name in (("echo", "broken"), ("filer", "filer")):
        copy_package(source, packages / name)
    (packages / "callme.toml").write_text(
        '[models.broken.env]\nECHO_SETUP_ERROR = "no weights today"\n'
    )
    with running_service(packages, tmp_path / "state") as service:
        refused = service.http.post("/models/broken/predictions", json={"input": {}})
        assert (refused.status_code, refused.headers["retry-after"].isdigit()) == (503, True)
        health = service.http.get("/models/broken/health-check").json()
        assert health["status"] == "SETUP_FAILED"
        assert health["setup"]["status"] == "failed"
        assert health["setup"]["logs"]
        written = service.http.post("/models/filer/predictions", json={"input": {"text": "abc"}})
        head, _, body = written.json()["output"].partition(",")
        assert head == "data:text/plain;base64"
        assert base64.b64decode(body) == b"ABC"
