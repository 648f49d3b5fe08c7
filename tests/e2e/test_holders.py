"""Keys keep their holders apart: what one has made does not exist for another."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Mount, Route

from router.app import create_app
from router.keys.key_store import KeyFile
from router.settings import Settings
from tests.e2e.service import Service, running_service
from tests.waiting import wait_until

Endpoint = tuple[str, str]

# Every endpoint is in one of these. A new one must be put where it belongs, or a test fails.
NO_KEY = {
    ("GET", "/health"),
    # The URLs of these hold a token.
    ("GET", "/v1/streams/{id}"),
    ("GET", "/v1/files/streams/{id}"),
    ("GET", "/v1/outputs/{id}/{name}"),
    ("GET", "/v1/remote-files/{id}/{name}"),
    ("PUT", "/v1/remote-files/{id}/{name}"),
}
EVERY_KEY = {
    ("GET", "/ready"),
    ("GET", "/openapi.json"),
    ("GET", "/models/{model}"),
    ("GET", "/models/{model}/health-check"),
    ("GET", "/models/{model}/openapi.json"),
    ("GET", "/models/{model}/view.json"),
    ("GET", "/models/{model}/example.json"),
    ("GET", "/models/{model}/example/{input}"),
    ("GET", "/v1/account"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{owner}/{name}"),
    ("GET", "/v1/models/{owner}/{name}/versions"),
    ("GET", "/v1/models/{owner}/{name}/versions/{version}"),
    ("GET", "/v1/models/{owner}/{name}/examples"),
    ("GET", "/v1/models/{owner}/{name}/readme"),
    ("QUERY", "/v1/models"),
    ("GET", "/v1/search"),
    ("GET", "/v1/hardware"),
    ("GET", "/v1/collections"),
    ("GET", "/v1/deployments"),
    ("GET", "/v1/trainings"),
}
# Of Replicate's API: what the box does not have, for every caller.
REFUSED = {
    ("GET", "/v1/collections/{slug}"),
    ("POST", "/v1/deployments"),
    ("GET", "/v1/deployments/{owner}/{name}"),
    ("PATCH", "/v1/deployments/{owner}/{name}"),
    ("DELETE", "/v1/deployments/{owner}/{name}"),
    ("POST", "/v1/deployments/{owner}/{name}/predictions"),
    ("POST", "/v1/models"),
    ("PATCH", "/v1/models/{owner}/{name}"),
    ("DELETE", "/v1/models/{owner}/{name}"),
    ("DELETE", "/v1/models/{owner}/{name}/versions/{version}"),
    ("POST", "/v1/models/{owner}/{name}/versions/{version}/trainings"),
    ("GET", "/v1/trainings/{id}"),
    ("POST", "/v1/trainings/{id}/cancel"),
}
ADMIN = {
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("GET", "/events"),
    ("GET", "/models/{model}/logs"),
    ("POST", "/models/{model}/load"),
    ("POST", "/models/{model}/unload"),
    ("POST", "/models/{model}/promote"),
    ("POST", "/models/{model}/restart"),
    ("POST", "/models/{model}/rollback"),
    ("GET", "/v1/webhooks/default/secret"),
}
# Make something new, which is then its holder's.
CREATE = {
    ("POST", "/{model}"),
    ("POST", "/models/{model}/predictions"),
    ("POST", "/v1/predictions"),
    ("POST", "/v1/models/{owner}/{name}/predictions"),
    ("POST", "/v1/files"),
}
LISTS = {("GET", "/v1/predictions"), ("GET", "/v1/files")}
SUMS = {("GET", "/usage")}
ONE_PREDICTION = {
    ("GET", "/predictions/{prediction_id}"),
    ("DELETE", "/predictions/{prediction_id}"),
    ("POST", "/predictions/{prediction_id}/cancel"),
    ("GET", "/models/{model}/predictions/{id}"),
    ("POST", "/models/{model}/predictions/{id}/cancel"),
    ("GET", "/v1/predictions/{id}"),
    ("POST", "/v1/predictions/{id}/cancel"),
}
ONE_FILE = {
    ("GET", "/v1/files/{id}"),
    ("GET", "/v1/files/{id}/download"),
    ("DELETE", "/v1/files/{id}"),
}
# An id of the client's choice: refused where it is somebody else's.
CLAIM = {("PUT", "/models/{model}/predictions/{id}")}
CLASSES = (NO_KEY, EVERY_KEY, REFUSED, ADMIN, CREATE, LISTS, SUMS, ONE_PREDICTION, ONE_FILE, CLAIM)
UNKNOWN_ID = "0" * 32


def endpoints() -> set[Endpoint]:
    """Every method and path of the application."""
    found: set[Endpoint] = set()
    for route in create_app(Settings()).routes:
        assert not isinstance(route, Mount), "its routes would not be seen here"
        assert isinstance(route, Route)
        found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    return found


def test_every_endpoint_is_classified() -> None:
    """Once: a new one must say who may see what it shows."""
    classified = [endpoint for endpoints in CLASSES for endpoint in endpoints]
    assert len(classified) == len(set(classified))
    assert endpoints() == set(classified)


@dataclass
class Box:
    """A service, and clients with the keys of two holders and of an admin."""

    service: Service
    ann: httpx.Client
    ann_too: httpx.Client  # another key of the same holder
    bob: httpx.Client
    admin: httpx.Client


@pytest.fixture(scope="module")
def box(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Keys as the command makes them."""
    state = tmp_path_factory.mktemp("holders") / "state"
    keys = KeyFile(state)
    secrets = {
        "ann": keys.create("ann"),
        "ann_too": keys.create("ann-2027", holder="ann"),
        "bob": keys.create("bob"),
        "admin": keys.create("ops", admin=True),
    }
    with (
        running_service(echo_packages, state) as service,
        contextlib.ExitStack() as stack,
    ):
        clients = {
            name: stack.enter_context(
                httpx.Client(
                    base_url=service.url,
                    timeout=240,
                    headers={"Authorization": f"Bearer {secret}"},
                )
            )
            for name, secret in secrets.items()
        }
        yield Box(service, **clients)


def made_by(http: httpx.Client, text: str = "x", **inputs: object) -> str:
    """The id of an asynchronous prediction of Cog's API."""
    answer = http.post(
        "/models/echo/predictions",
        json={"input": {"text": text, **inputs}},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    prediction_id: str = answer.json()["id"]
    return prediction_id


def uploaded_by(http: httpx.Client) -> str:
    """The id of an uploaded file."""
    answer = http.post("/v1/files", files={"content": ("a.txt", b"ann's own", "text/plain")})
    assert answer.status_code == 201, answer.text
    file_id: str = answer.json()["id"]
    return file_id


def ended(http: httpx.Client, prediction_id: str) -> dict[str, Any]:
    """The prediction when it has ended."""

    def look() -> dict[str, Any] | None:
        view: dict[str, Any] = http.get(f"/predictions/{prediction_id}").json()
        return view if view["status"] not in ("starting", "processing") else None

    found: dict[str, Any] = wait_until(look)
    return found


def path_of(template: str, item: str) -> str:
    """The template with names that exist in it, and the item's id."""
    names = {"{model}": "echo", "{owner}": "acme", "{name}": "echo"}
    for placeholder, value in {**names, "{id}": item, "{prediction_id}": item}.items():
        template = template.replace(placeholder, value)
    return template


def refusal(answer: httpx.Response, item: str) -> tuple[int, str]:
    """Its status and body, the id left out."""
    return answer.status_code, answer.text.replace(item, "ID")


@pytest.mark.parametrize("endpoint", sorted(ONE_PREDICTION))
@pytest.mark.parametrize("is_running", [True, False])
def test_anothers_prediction_does_not_exist(box: Box, endpoint: Endpoint, is_running: bool) -> None:
    """To the letter what an id is answered that nobody has made, while it runs and when it has
    ended; the other key of its holder and an admin find it."""
    method, template = endpoint
    made = made_by(box.ann, delay_s=60 if is_running else 0)
    if is_running:
        wait_until(lambda: box.ann.get(f"/predictions/{made}").json()["status"] == "processing")
    else:
        ended(box.ann, made)
    hidden = box.bob.request(method, path_of(template, made))
    unknown = box.bob.request(method, path_of(template, UNKNOWN_ID))
    assert hidden.status_code == 404
    assert refusal(hidden, made) == refusal(unknown, UNKNOWN_ID)
    status = "processing" if is_running else "succeeded"
    assert box.ann.get(f"/predictions/{made}").json()["status"] == status
    for http in (box.ann_too, box.admin):
        found = http.request(method, path_of(template, made))
        if method == "DELETE":  # only when it has ended, and then it is gone
            assert found.status_code == (409 if is_running else 204), found.text
            break
        assert found.status_code == 200
    box.ann.post(f"/predictions/{made}/cancel")


@pytest.mark.parametrize("endpoint", sorted(ONE_FILE))
def test_anothers_file_does_not_exist(box: Box, endpoint: Endpoint) -> None:
    """The same answer as for a file that nobody has uploaded."""
    method, template = endpoint
    made = uploaded_by(box.ann)
    hidden = box.bob.request(method, path_of(template, made))
    unknown = box.bob.request(method, path_of(template, UNKNOWN_ID))
    assert hidden.status_code == 404
    assert refusal(hidden, made) == refusal(unknown, UNKNOWN_ID)
    for http in (box.ann_too, box.admin):
        assert http.get(f"/v1/files/{made}").status_code == 200
    assert box.ann_too.request(method, path_of(template, made)).is_success


@pytest.mark.parametrize("endpoint", sorted(LISTS))
def test_lists_hold_ones_own(box: Box, endpoint: Endpoint) -> None:
    """Of each holder only its own, page by page; an admin sees all."""
    _, path = endpoint

    def make(http: httpx.Client) -> str:
        return uploaded_by(http) if path == "/v1/files" else made_by(http)

    anns, bobs = {make(box.ann), make(box.ann_too)}, {make(box.bob)}

    def listed(http: httpx.Client) -> set[str]:
        page = http.get(path).json()
        ids = {item["id"] for item in page["results"]}
        while page["next"]:
            page = http.get(page["next"]).json()
            ids |= {item["id"] for item in page["results"]}
        return ids

    assert anns <= listed(box.ann) == listed(box.ann_too)
    assert bobs <= listed(box.bob)
    assert not listed(box.ann) & listed(box.bob)
    assert anns | bobs <= listed(box.admin)


def test_usage_is_ones_own(box: Box) -> None:
    """A holder sees what its keys have used; an admin sees all. It is there at once."""

    def used(http: httpx.Client) -> dict[str, Counter[str]]:
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        for row in http.get("/usage?days=2").json()["rows"]:
            sums[row["key"]].update({k: v for k, v in row.items() if isinstance(v, int | float)})
        return sums

    assert box.bob.post("/echo", files={"text": (None, "x")}).status_code == 200
    before = used(box.admin)
    file = ("a.txt", b"y" * 5000, "text/plain")
    assert box.ann_too.post("/echo", files={"file": file}).status_code == 200
    for mode, status in (("raise", 500), ("crash", 502)):
        assert box.ann.post("/echo", files={"mode": (None, mode)}).status_code == status
    after = used(box.admin)
    assert after["bob"] == before["bob"]
    gained = {name: after["ann"][name] - before["ann"][name] for name in after["ann"]}
    assert (gained["predictions"], gained["failed"], gained["canceled"]) == (3, 2, 0)
    assert 5000 < gained["input_bytes"] < 6000
    assert gained["output_bytes"] > 0
    assert gained["run_s"] > 0
    assert used(box.ann) == used(box.ann_too) == {"ann": after["ann"]}
    for days in ("0", "367", "00001999999999999", "-1", "1.0", "%C2%B2"):
        assert box.ann.get(f"/usage?days={days}").status_code == 400, days


def test_anothers_id_is_taken(box: Box) -> None:
    """A PUT of an id that somebody else has made, with the very same body or another, runs
    nothing, shows nothing, and does not say whose it is; its holder's repetition is found."""
    path = "/models/echo/predictions/order-77"
    body = {"input": {"text": "ann's own"}}
    assert box.ann.put(path, json=body).json()["status"] == "succeeded"
    answers = [
        box.bob.put(path, json=body),
        box.bob.put(path, json={"input": {"text": "other"}}),
        box.bob.post("/models/echo/predictions", json={"id": "order-77", **body}),
        box.bob.put(path, json=body, headers={"Accept": "text/event-stream, */*"}),
        box.ann.put(path, json={"input": {"text": "other"}}),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "id_conflict")
        message = answer.json()["error"]["message"]
        assert message == "Cannot create 'order-77': the id is taken"
    repeated = box.ann_too.put(path, json=body).json()
    assert (repeated["status"], repeated["output"]["text"]) == ("succeeded", "ann's own")


def test_anothers_file_is_no_input(box: Box) -> None:
    """Its URL is for its holder's predictions alone."""
    url = f"{box.service.url}/v1/files/{uploaded_by(box.ann)}"
    body = {"input": {"file": url}}
    for http, status in ((box.ann_too, 200), (box.bob, 422)):
        answer = http.post("/models/echo/predictions", json=body)
        assert answer.status_code == status, answer.text
    form = {"file": (None, url)}
    assert box.bob.post("/echo", files=form).status_code == 422
    assert box.ann.post("/echo", files=form).json()["file_bytes"] == len(b"ann's own")


@pytest.mark.parametrize("endpoint", sorted(ADMIN))
def test_what_concerns_all_is_for_admins(box: Box, endpoint: Endpoint) -> None:
    """403 and how to get such a key; an admin's key and this machine's own programs are let in."""
    method, template = endpoint
    path = path_of(template, "")
    refused = box.ann.request(method, path)
    assert refused.status_code == 403
    assert "--admin" in refused.text
    local = (box.service.state / "local_key").read_text()
    own = {"Authorization": f"Bearer {local}"}
    with box.admin.stream(method, path) as answer, box.ann.stream(method, path, headers=own) as too:
        done = 202 if method == "POST" else 200
        if template.endswith(("promote", "rollback")):
            done = 405  # let in, but the model has no canary
        assert (answer.status_code, too.status_code) == (done, done)


@pytest.mark.parametrize("endpoint", sorted(EVERY_KEY))
def test_what_every_key_may_ask_names_nobody(box: Box, endpoint: Endpoint) -> None:
    """No id and no input of a prediction or file is in it."""
    made = made_by(box.ann, "a text of ann's")
    ended(box.ann, made)
    answer = box.bob.request(endpoint[0], path_of(endpoint[1], made))
    assert answer.status_code in (200, 400, 404)  # a search wants a query
    assert made not in answer.text
    assert "a text of ann's" not in answer.text
