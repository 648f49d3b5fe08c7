"""Metrics, events and request ids of the real service."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.e2e.service import ROOT, Service, running_service
from tests.waiting import wait_until

DASHBOARD = ROOT / "deploy" / "grafana" / "callme.json"


def scraped(service: Service, name: str, **labels: str) -> float | None:
    """A sample of /metrics, None if there is no such."""
    answer = service.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in answer.text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if not found or found[1] != name:
            continue
        if dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return None


def changes(response: httpx.Response) -> Iterator[tuple[str, dict[str, str]]]:
    """The events of a stream."""
    kind = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_a_prediction_in_the_metrics(echo: Service) -> None:
    """A success, a failure, a load, and HTTP requests under their routes' templates."""
    assert echo.http.post("/echo", files={"text": (None, "hi")}).status_code == 200
    assert echo.http.post("/echo", files={"mode": (None, "raise")}).status_code == 500
    done = {"model": "echo", "outcome": "succeeded"}
    assert scraped(echo, "callme_predictions_total", **done) == 1.0
    failed = {"model": "echo", "outcome": "prediction_failed"}
    assert scraped(echo, "callme_predictions_total", **failed) == 1.0
    assert scraped(echo, "callme_prediction_seconds_count", model="echo") == 2.0
    assert scraped(echo, "callme_model_loads_total", model="echo", outcome="ready") == 1.0
    assert scraped(echo, "callme_model_crashes_total", model="echo") == 0.0
    assert scraped(echo, "callme_model_state", model="echo", state="ready") == 1.0
    assert (scraped(echo, "callme_memory_budget_bytes") or 0) > 0
    asked = {"route": "/{model}", "method": "POST", "status": "200"}
    assert scraped(echo, "callme_http_requests_total", **asked) == 1.0


def test_paths_are_no_labels(echo: Service) -> None:
    """Whatever clients ask for, the series stay as many as there are routes."""
    for i in range(20):
        echo.http.get(f"/predictions/nosuch{i}")
        echo.http.get(f"/no/such/path{i}")
    text = echo.http.get("/metrics").text
    assert "nosuch" not in text
    assert "such/path" not in text
    routes = {"/predictions/{prediction_id}", "unmatched"}
    assert routes <= set(re.findall(r'route="([^"]*)"', text))


def test_request_ids_in_answers_and_log(echo: Service) -> None:
    """One access line per request, ours, soon after it; uvicorn's is off."""
    given = {"X-Request-Id": "web-77"}
    assert echo.http.get("/status", headers=given).headers["x-request-id"] == "web-77"
    assert re.fullmatch("[0-9a-f]{32}", echo.http.get("/health").headers["x-request-id"])
    lines = wait_until(lambda: [s for s in echo.log().splitlines() if "web-77" in s])
    told = json.loads(*lines)
    assert (told["route"], told["status"]) == ("/status", 200)
    assert '"GET /status HTTP' not in echo.log()


def test_events_tell_of_changes(echo: Service) -> None:
    """First what is, then a prediction's steps; ids, models and statuses only."""
    with httpx.stream("GET", f"{echo.url}/events", timeout=240) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = changes(response)
        first = [next(told) for _ in range(2)]
        assert {(kind, data["model"]) for kind, data in first} == {
            ("model", "echo"),
            ("model", "parrot"),
        }
        answer = echo.http.post("/echo", files={"text": (None, "a secret")})
        prediction_id = answer.headers["x-prediction-id"]
        steps = []
        for kind, data in told:
            if kind == "prediction":
                assert data.keys() == {"id", "model", "status"}
                assert (data["id"], data["model"]) == (prediction_id, "echo")
                steps.append(data["status"])
                if data["status"] == "succeeded":
                    break
        assert steps[-2:] == ["processing", "succeeded"]


def test_models_states_are_told_in_order(echo_packages: Path, tmp_path: Path) -> None:
    """A first request loads the model; its crash ends it."""
    with (
        running_service(echo_packages, tmp_path / "state") as service,
        httpx.stream("GET", f"{service.url}/events", timeout=240) as response,
    ):
        told = changes(response)
        for _ in range(2):
            next(told)
        service.http.post("/echo", files={"mode": (None, "crash")})
        states = []
        for kind, data in told:
            if kind == "model":
                states.append(data["state"])
                if len(states) == 3:
                    break
        assert states == ["starting", "ready", "stopping"]
        assert scraped(service, "callme_model_crashes_total", model="echo") == 1.0
        died = {"model": "echo", "outcome": "worker_died"}
        assert scraped(service, "callme_predictions_total", **died) == 1.0


def test_a_follower_does_not_delay_ctrl_c(echo_packages: Path, tmp_path: Path) -> None:
    """Neither one that reads nor one that never does."""
    with running_service(echo_packages, tmp_path / "state") as service:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as lazy:
            lazy.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with httpx.stream("GET", f"{service.url}/events", timeout=240) as response:
                told = changes(response)
                next(told)
                service.child.send_signal(signal.SIGINT)
                for _ in told:
                    pass  # to its proper end: httpx raises on any other
                service.child.wait(60)  # the client that never reads must not hold it
        assert "Traceback" not in service.log()


def test_a_key_is_needed(echo_packages: Path, tmp_path: Path) -> None:
    """Behind the AuthMiddleware like everything else; a refusal has an id and is counted too."""
    env = {"CALLME_ADMIN_KEYS": "ops:0123456789abcdef0123456789abcdef"}
    with running_service(echo_packages, tmp_path / "state", env) as service:
        for path in ("/metrics", "/events"):
            answer = service.http.get(path)
            assert answer.status_code == 401
            assert answer.headers["x-request-id"]
        service.http.headers["Authorization"] = "Bearer 0123456789abcdef0123456789abcdef"
        refused = {"route": "unmatched", "method": "GET", "status": "401"}
        wait_until(lambda: scraped(service, "callme_http_requests_total", **refused) == 2.0)


def test_the_dashboard_asks_for_what_there_is(echo: Service) -> None:
    """Each metric and each label in an expression is in /metrics, and each metric of ours in the
    dashboard."""
    assert echo.http.post("/echo", files={"text": (None, "hi")}).status_code == 200
    text = echo.http.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    series = set(kinds) | {f"{m}_bucket" for m, kind in kinds.items() if kind == "histogram"}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    asked += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["name"] == "model"]
    used: set[str] = set()
    for expression in asked:
        names = set(re.findall(r"\b((?:callme|process)_\w+)", expression))
        assert names, expression
        assert names <= series, expression
        used |= {name.removesuffix("_bucket") for name in names}
        grouped = set(re.findall(r"\w+", ",".join(re.findall(r"by \(([^)]*)\)", expression))))
        filtered = set(re.findall(r"(\w+)!?=", expression))
        for name in names:
            given = re.findall(rf"^{name}\{{(.*)\}} ", text, re.M)
            labels = {label for line in given for label in re.findall(r'(\w+)="', line)}
            # What has not happened yet has no line. Then its labels are not known here.
            assert not given or grouped | filtered <= labels, (expression, labels)
    ours = {n for n in kinds if n.startswith("callme_") and not n.endswith("_created")}
    assert ours <= used
    grid = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(g["x"] + g["w"] <= 24 for g in grid)
    assert len({(g["x"], g["y"]) for g in grid}) == len(grid)
