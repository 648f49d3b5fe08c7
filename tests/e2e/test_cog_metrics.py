"""A model's own metrics and the request's context, as coglet has them, through every API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from router.prediction import MetricUpdate, new_id
from router.predictions.custom_metrics import apply
from tests.e2e.service import Service, running_service
from tests.e2e.test_secrets import holding
from tests.e2e.test_streaming import EVENTS, read
from tests.e2e.webhook_receiver import webhook_receiver
from tests.package_copies import packages_in
from tests.waiting import wait_until

TIMES = {"predict_time", "total_time"}
RECORDED = {
    "temperature": 0.7,
    "token_count": 3,
    "tags": ["fast", "cached"],
    "timing": {"preprocess": 0.1},
    "version": "v2",
}
CONTEXT = {"region": "us-east-1", "api_token": "secret123"}
AS_TEXT = "api_token=secret123,region=us-east-1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A model that records metrics, and one that streams while it does."""
    packages = packages_in(tmp_path_factory.mktemp("packages"), "gauge", "ticker")
    state = tmp_path_factory.mktemp("metrics") / "state"
    with running_service(packages, state, {"CALLME_ALLOW_PRIVATE_URLS": "true"}) as service:
        yield service


def own(prediction: dict[str, Any]) -> dict[str, Any]:
    """The metrics that are not the router's."""
    assert prediction["metrics"].keys() >= TIMES, prediction
    return {k: v for k, v in prediction["metrics"].items() if k not in TIMES}


def cog(service: Service, body: dict[str, Any], model: str = "gauge") -> dict[str, Any]:
    """A synchronous prediction by Cog's API."""
    answer = service.http.post(f"/models/{model}/predictions", json=body)
    assert answer.status_code == 200, answer.text
    p: dict[str, Any] = answer.json()
    return p


# ---- metrics -----------------------------------------------------------------------------


def test_every_api(service: Service) -> None:
    """What a run records is in `metrics` of the three APIs, and stays in the store."""
    assert own(cog(service, {"input": {}})) == RECORDED
    made = service.http.post("/v1/models/a/gauge/predictions", json={"input": {}}).json()
    url = f"/v1/predictions/{made['id']}"
    wait_until(lambda: service.http.get(url).json()["status"] == "succeeded")
    assert own(service.http.get(url).json()) == RECORDED
    assert own(service.http.get("/v1/predictions").json()["results"][0]) == RECORDED
    form = {"end": (None, "well")}
    headers = {"Prefer": "respond-async"}
    location = service.http.post("/gauge", files=form, headers=headers).headers["location"]
    wait_until(lambda: service.http.get(location).json()["status"] == "succeeded")
    assert own(service.http.get(location).json()) == RECORDED


def test_deprecated_calls(service: Service) -> None:
    """`cog.emit_metric` still works."""
    p = cog(service, {"input": {"way": "deprecated"}})
    assert own(p) == {"output_tokens": 42, "input_tokens": 10}


def test_a_failure_keeps_them(service: Service) -> None:
    """What was recorded before the run raised."""
    p = cog(service, {"input": {"end": "raise"}})
    assert (p["status"], own(p)) == ("failed", RECORDED)


def test_webhooks(service: Service) -> None:
    """The `completed` webhook has them."""
    with webhook_receiver() as inbox:
        body = {"input": {}, "webhook": inbox.url, "webhook_events_filter": ["completed"]}
        made = service.http.post("/v1/models/a/gauge/predictions", json=body).json()
        (body_sent,) = wait_until(lambda: inbox.of(made["id"]))
    assert own(body_sent) == RECORDED


def test_reserved_names(service: Service) -> None:
    """`predict_time` and `total_time` are the router's, whatever a model records."""
    p = cog(service, {"input": {"way": "reserved"}})
    assert own(p) == {}
    assert isinstance(p["metrics"]["predict_time"], float)
    assert p["metrics"]["total_time"] > 0


def test_never_nan(service: Service) -> None:
    """What JSON has no number for is null, or nothing."""
    answer = service.http.post("/models/gauge/predictions", json={"input": {"way": "not finite"}})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    assert own(json.loads(answer.text, parse_constant=refuse)) == {"losses": [None, 1.0]}


@pytest.mark.parametrize(("way", "left"), [("large", {"few": 1}), ("deep", {"flat": 1})])
def test_bounds(service: Service, way: str, left: dict[str, Any]) -> None:
    """A metric that is too large is left out, and said so in the router's log; others stay."""
    assert own(cog(service, {"input": {"way": way}})) == left
    assert "metrics are too large and left out" in service.log()


def test_while_it_runs(service: Service) -> None:
    """A stream has each metric where it came; a poller sees them before the end."""
    path = f"/models/ticker/predictions/{new_id()}"
    body = {"input": {"ticks": 2, "last_s": 60}, "context": CONTEXT}
    with service.http.stream("PUT", path, json=body, headers=EVENTS) as response:
        events = read(response)
        seen: list[tuple[str, str]] = []
        while not seen or "context" not in seen[-1][1]:
            name, _, data = next(events)
            seen.append((name, data))
        came = [(name, json.loads(data)) for name, data in seen if name in ("metric", "output")]
        counted = {"name": "counted", "value": 1, "mode": "increment"}
        assert came[:-1] == [
            ("metric", {"name": "speed", "value": 0.7, "mode": "replace"}),
            ("output", {"chunk": "tick 0", "index": 0}),
            ("metric", counted),
            ("output", {"chunk": "tick 1", "index": 1}),
            ("metric", counted),
        ]
        assert "secret123" in came[-1][1]["chunk"]
        assert service.http.get(path).json()["metrics"] == {"speed": 0.7, "counted": 2}
        service.http.post(f"{path}/cancel")
        name, _, data = list(events)[-1]
    assert (name, own(json.loads(data))) == ("completed", {"speed": 0.7, "counted": 2})
    with service.http.stream("PUT", path, json=body, headers=EVENTS) as response:
        again = [(n, json.loads(d)) for n, _, d in read(response)]
    metrics: dict[str, Any] = {}
    for kind, update in again:
        if kind == "metric":
            apply(metrics, MetricUpdate(**update))
    assert metrics == {"speed": 0.7, "counted": 2}


def test_counting_for_long(service: Service) -> None:
    """A follower sees each update of a counter; the end has the sum. (Fewer than 1024: a reader
    who is so many events behind is cut off by coglet.)"""
    body = {"input": {"ticks": 3, "updates": 300}}
    path = "/models/ticker/predictions"
    with service.http.stream("POST", path, json=body, headers=EVENTS) as response:
        events = [(name, data) for name, _, data in read(response)]
    assert sum(name == "metric" for name, _ in events) == 901
    assert own(json.loads(events[-1][1])) == {"speed": 0.7, "counted": 900}


# ---- context -----------------------------------------------------------------------------


def test_context(service: Service) -> None:
    """The runner reads it; nobody else is shown it; without it there is none."""
    with_it = cog(service, {"input": {}, "context": CONTEXT})
    assert with_it["output"] == AS_TEXT
    assert "context" not in with_it
    assert cog(service, {"input": {}})["output"] == ""
    assert cog(service, {"input": {}, "context": None})["output"] == ""


def test_context_of_an_asynchronous_one(service: Service) -> None:
    """It is part of what a repeated PUT is compared by, and is forgotten with the end."""
    path = f"/models/gauge/predictions/{new_id()}"
    body = {"input": {}, "context": CONTEXT}
    service.http.put(path, json=body, headers={"Prefer": "respond-async"})
    ended = wait_until(
        lambda: (p := service.http.get(path).json())["status"] == "succeeded" and p, 60
    )
    assert ended["output"] == AS_TEXT
    assert service.http.put(path, json=body).json() == ended
    other = service.http.put(path, json={**body, "context": {"region": "eu"}})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "id_conflict")


def test_context_at_rest(service: Service) -> None:
    """It may be a credential: sealed while the prediction needs it, and gone with its end."""
    prediction_id = new_id()
    path = f"/models/ticker/predictions/{prediction_id}"
    token = new_id()
    body = {"input": {"ticks": 0, "last_s": 60}, "context": {"token": token}}
    service.http.put(path, json=body, headers={"Prefer": "respond-async"})
    wait_until(lambda: service.http.get(path).json()["output"])
    sealed_file = service.state / "sealed" / prediction_id
    assert sealed_file.exists()
    assert holding(service.state, token.encode()) == []
    service.http.post(f"{path}/cancel")
    wait_until(lambda: not sealed_file.exists())


@pytest.mark.parametrize(
    "context", [[], "x", {"a": 1}, {"a": None}, {"a": {"b": "c"}}, {"a": "x" * (17 << 10)}]
)
def test_context_that_is_refused(service: Service, context: Any) -> None:
    """422 that names it."""
    answer = service.http.post("/models/gauge/predictions", json={"input": {}, "context": context})
    assert answer.status_code == 422, answer.text
    assert [d["loc"] for d in answer.json()["detail"]] == [["body", "context"]]
