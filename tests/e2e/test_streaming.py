"""What a prediction prints and puts out, while it does: to followers, pollers and webhooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ReplicateError

from tests.e2e.service import Service, kill, running_service
from tests.e2e.test_replicate_api import NPM_CLIENT, node
from tests.e2e.webhook_receiver import webhook_receiver
from tests.edge.npm_tools import npm_folder
from tests.package_copies import packages_in
from tests.waiting import wait_until

KEY = "0123456789abcdef0123456789abcdef"
TEXT = "so much depends\nupon a red wheel barrow"
WORDS = [w if i == 0 else f" {w}" for i, w in enumerate(TEXT.split(" "))]
EVENTS = {"Accept": "text/event-stream"}

Event = tuple[str, str, str]  # name, id, data


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A model that streams and one that does not, behind a key."""
    packages = packages_in(tmp_path_factory.mktemp("packages"), "poet", "echo")
    state = tmp_path_factory.mktemp("streaming") / "state"
    env = {"CALLME_KEYS": f"team:{KEY}", "CALLME_ALLOW_PRIVATE_URLS": "true"}
    with running_service(packages, state, env) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        yield service


def read(response: httpx.Response) -> Iterator[Event]:
    """The events of a stream, as they come."""
    name, event_id, data = "", "", list[str]()
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield name, event_id, "\n".join(data)
            name, data = "", []


def started(service: Service, model: str = "poet", **inputs: Any) -> dict[str, Any]:
    """An asynchronous prediction, as Replicate's API shows it."""
    answer = service.http.post(f"/v1/models/a/{model}/predictions", json={"input": inputs})
    assert answer.status_code == 201, answer.text
    prediction: dict[str, Any] = answer.json()
    return prediction


def followed(url: str, **headers: str) -> list[Event]:
    """The whole stream, read with its URL alone: no key is sent."""
    with httpx.stream("GET", url, headers={**EVENTS, **headers}, timeout=240) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(read(response))


def outputs(events: list[Event]) -> list[str]:
    return [data for name, _, data in events if name == "output"]


# ---- Replicate's API ---------------------------------------------------------------------


def test_python_client(service: Service) -> None:
    """`replicate.stream` gives the words as the model says them."""
    client = Client(api_token=KEY, base_url=service.url)
    events = list(client.stream("acme/poet", input={"text": TEXT}))
    assert "".join(map(str, events)) == TEXT
    assert [str(e) for e in events if e.event.value == "output"] == WORDS
    assert events[-1].event.value == "done"
    with pytest.raises(RuntimeError, match="lost for words"):
        list(client.stream("acme/poet", input={"end": "raise"}))
    with pytest.raises(ReplicateError, match="does not support streaming"):
        list(client.stream("acme/echo", input={}))


def test_npm_client(service: Service) -> None:
    """`replicate.stream` of npm's client, which sends no key to the stream's URL."""
    script = """
    const Replicate = require("replicate");
    const { url, key, text } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const replicate = new Replicate({ auth: key, baseUrl: url + "/v1" });
    (async () => {
      const events = [];
      for await (const { event, data } of replicate.stream("acme/poet", { input: { text } }))
        events.push([event, data]);
      console.log(JSON.stringify(events));
    })();
    """
    given = {"url": service.url, "key": KEY, "text": TEXT}
    events = node(npm_folder(NPM_CLIENT), script, given)
    assert [data for name, data in events if name == "output"] == WORDS
    assert events[-1] == ["done", "{}"]


def test_seen_before_the_end(service: Service) -> None:
    """The first word comes while the model has not said the last, to followers and pollers."""
    prediction = started(service, text="one two", delay_s=20)
    url = f"/v1/predictions/{prediction['id']}"
    with httpx.stream("GET", prediction["urls"]["stream"], headers=EVENTS, timeout=240) as response:
        events = read(response)
        seen = [next(events) for _ in range(3)]
        assert {name for name, _, _ in seen} == {"logs", "output"}
        assert outputs(seen) == ["one"]
        so_far = service.http.get(url).json()
        assert (so_far["status"], so_far["output"]) == ("processing", ["one"])
        assert set(so_far["logs"].splitlines()) == {"1 of 2", "ahem"}
        assert service.http.post(f"{url}/cancel").status_code == 200
        assert list(events)[-1][2] == '{"reason":"canceled"}'


def test_again_from_where_it_was(service: Service) -> None:
    """Each event's id is a place to go on from, even after the end; anybody's guess is not."""
    prediction = started(service, text=TEXT)
    url = prediction["urls"]["stream"]
    events = followed(url)
    assert outputs(events) == WORDS
    assert events[-1][0] == "done"
    third = [e for e in events if e[0] == "output"][2]
    rest = followed(url, **{"Last-Event-ID": third[1]})
    assert outputs(rest) == WORDS[3:]
    assert httpx.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 401
    assert httpx.get(url.partition("?")[0]).status_code == 401


def test_a_worker_that_dies(service: Service) -> None:
    """What it had said stays, and the stream says how it ended."""
    events = followed(started(service, end="crash")["urls"]["stream"])
    assert outputs(events) == ["so", " much", " depends"]
    assert [name for name, _, _ in events[-2:]] == ["error", "done"]
    assert "process ended" in json.loads(events[-2][2])["detail"]


def test_webhooks_on_the_way(service: Service) -> None:
    """`output` and `logs` come while it runs, with what there is by then."""
    with webhook_receiver() as inbox:
        body = {
            "input": {"text": "one two three", "delay_s": 0.7},
            "webhook": inbox.url,
            "webhook_events_filter": ["output", "completed"],
        }
        made = service.http.post("/v1/models/a/poet/predictions", json=body).json()
        wait_until(lambda: [b for b in inbox.of(made["id"]) if b["status"] == "succeeded"])
        told = inbox.of(made["id"])
    assert told[0]["output"] == ["one"]
    assert told[0]["status"] == "processing"
    assert told[-1]["output"] == ["one", " two", " three"]


# ---- Cog's API ---------------------------------------------------------------------------


def test_cog(service: Service) -> None:
    """The events that Cog documents, from start to completed."""
    body = {"input": {"text": "one two"}}
    path = "/models/poet/predictions"
    with service.http.stream("POST", path, json=body, headers=EVENTS) as response:
        events = [(name, json.loads(data)) for name, _, data in read(response)]
    assert events[0][0] == "start"
    assert events[0][1]["status"] == "processing"
    assert [d for name, d in events if name == "output"] == [
        {"chunk": "one", "index": 0},
        {"chunk": " two", "index": 1},
    ]
    logs = [d for name, d in events if name == "log"]
    assert {"source": "stdout", "data": "2 of 2\n"} in logs
    assert sum(d["data"] == "ahem\n" for d in logs) == 2
    name, ended = events[-1]
    assert name == "completed"
    assert (ended["status"], ended["output"]) == ("succeeded", ["one", " two"])


def test_cog_without_streaming(service: Service) -> None:
    """406 for a model that has not opted in; a model that has still answers with JSON."""
    answer = service.http.post("/models/echo/predictions", json={"input": {}}, headers=EVENTS)
    assert answer.status_code == 406
    either = {"Accept": "application/json, text/event-stream"}
    answer = service.http.post("/models/echo/predictions", json={"input": {}}, headers=either)
    assert answer.json()["status"] == "succeeded"
    answer = service.http.post("/models/poet/predictions", json={"input": {"text": "one two"}})
    assert answer.json()["output"] == ["one", " two"]
    answer = service.http.post("/poet", files={"text": (None, "one two")})
    assert answer.json() == ["one", " two"]


def test_cog_put_joins(service: Service) -> None:
    """PUT of an id in flight follows it from its beginning; it runs once. After it as well."""
    url, body = "/models/poet/predictions/twice", {"input": {"text": "one two", "delay_s": 0.3}}
    with service.http.stream("PUT", url, json=body, headers=EVENTS) as response:
        events = read(response)
        first = next(events)
    for _ in range(2):
        with service.http.stream("PUT", url, json=body, headers=EVENTS) as response:
            again = list(read(response))
        assert again[0] == first
        assert [json.loads(e[2])["chunk"] for e in again if e[0] == "output"] == ["one", " two"]


def test_a_client_that_leaves(service: Service) -> None:
    """A POST that nobody follows any more is canceled, however early, and its process lives on:
    a cancel may overtake the prediction on its way to the model's server."""
    body = {"input": {"text": "one two three", "delay_s": 60}}  # by itself it takes 180 s
    path = "/models/poet/predictions"
    assert service.http.post(path, json={"input": {"text": "one"}}).status_code == 200
    processes = {p.pid for p in service.workers()}
    for _ in range(20):
        with service.http.stream("POST", path, json=body, headers=EVENTS) as response:
            next(read(response))
        wait_until(lambda: service.model("poet")["state"] == "ready")
    assert processes <= {p.pid for p in service.workers()}


# ---- models that do not stream -----------------------------------------------------------


def test_a_log_while_it_runs(service: Service) -> None:
    """What any model prints can be read before it has ended."""
    prediction = started(service, "echo", text="tick", delay_s=60)
    url = f"/v1/predictions/{prediction['id']}"
    wait_until(lambda: service.http.get(url).json()["logs"] == "echo tick []\n")
    assert service.http.post(f"{url}/cancel").status_code == 200


def test_last_words(service: Service) -> None:
    """A process that dies leaves what it printed in the error: its own lines, nobody else's."""
    assert service.http.post("/echo", files={"text": (None, "a secret")}).status_code == 200
    made = service.http.post(
        "/echo",
        files={"text": (None, "mine"), "delay_s": (None, "60")},
        headers={"Prefer": "respond-async"},
    ).json()
    url = f"/predictions/{made['id']}"
    wait_until(lambda: service.http.get(url).json()["logs"])
    kill(service.workers())
    ended = wait_until(lambda: (p := service.http.get(url).json())["error"] and p)
    assert ended["error"]["code"] == "worker_died"
    assert ended["logs"] == "echo mine []\n"
    tail = ended["error"]["details"]["log_tail"]
    assert "echo mine []" in tail
    assert not any("secret" in line for line in tail)
