"""The official `replicate` clients, from PyPI and npm, work against the router."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.pagination import paginate
from replicate.prediction import Prediction
from replicate.webhook import InvalidSignatureError, Webhooks

from tests.e2e.service import Service, running_service
from tests.e2e.webhook_receiver import Inbox, webhook_receiver
from tests.edge.npm_tools import npm_folder
from tests.waiting import wait_until

KEY = "a-key-of-the-team-0123456789abcdef"
NPM_CLIENT = ("replicate", "1.4.0")
ENDED = ("succeeded", "failed", "canceled")


@pytest.fixture(scope="module")
def service(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key, which may call webhooks on this machine."""
    state = tmp_path_factory.mktemp("replicate") / "state"
    env = {"CALLME_ADMIN_KEYS": f"team:{KEY}", "CALLME_ALLOW_PRIVATE_URLS": "true"}
    with running_service(echo_packages, state, env) as service:
        service.http.headers["authorization"] = f"Token {KEY}"
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Client:
    """The Python client, as its documentation says, with our address."""
    client = Client(api_token=KEY, base_url=service.url)
    client.poll_interval = 0.02
    return client


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    """Somebody who wants to be told."""
    with webhook_receiver() as inbox:
        yield inbox


def completed(inbox: Inbox, prediction_id: str) -> list[dict[str, Any]]:
    """All that was told of the prediction, once its end has been."""

    def told() -> list[dict[str, Any]] | None:
        bodies = inbox.of(prediction_id)
        return bodies if bodies and bodies[-1]["status"] in ENDED else None

    found: list[dict[str, Any]] = wait_until(told)
    return found


def run(client: Client, ref: str, **params: Any) -> Any:
    """`client.run`, whose type says nothing."""
    return client.run(ref, **params)


# ---- PyPI's client -----------------------------------------------------------------------


def test_run(client: Client) -> None:
    """By model, by version, waiting or polling: the model's output."""
    output = run(client, "acme/echo", input={"text": "hi", "number": 0.25})
    assert (output["text"], output["number"]) == ("hi", 0.25)
    version = client.models.get("acme/echo").latest_version
    assert version is not None
    by_version = run(client, f"acme/echo:{version.id}", input={"text": "exact"})
    assert by_version["text"] == "exact"
    assert run(client, "acme/echo", input={"text": "p"}, wait=False)["text"] == "p"
    # It outlasts the wait: the client goes on polling.
    slow = run(client, "acme/echo", input={"text": "slow", "delay_s": 1.5}, wait=1)
    assert slow["text"] == "slow"


def test_a_model_that_fails(client: Client) -> None:
    """The client's own exception, with the model's words."""
    with pytest.raises(ModelError, match="boom") as caught:
        run(client, "acme/echo", input={"mode": "raise"})
    assert caught.value.prediction.status == "failed"


def test_create_get_wait(client: Client) -> None:
    """A prediction in Replicate's shape, from starting to succeeded."""
    p = client.predictions.create(model="acme/echo", input={"text": "x", "delay_s": 0.2})
    assert (p.status, p.model, p.error) == ("starting", "acme/echo", None)
    assert p.urls is not None
    assert p.urls["get"].endswith(f"/v1/predictions/{p.id}")
    p.wait()
    assert p.status == "succeeded"
    assert (p.output or {})["text"] == "x"
    assert p.input == {"text": "x", "delay_s": 0.2}
    assert "echo x []" in (p.logs or "")
    assert (p.metrics or {})["predict_time"] >= 0.2
    for at in (p.created_at, p.started_at, p.completed_at):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at or "")
    assert client.predictions.get(p.id).dict() == p.dict()
    (version,) = client.models.get("any", "echo").versions.list()
    assert p.version == version.id
    by_version = client.predictions.create(version=p.version, input={}, wait=True)
    assert by_version.status == "succeeded"


def test_cancel(client: Client) -> None:
    """Running and waiting."""
    running, waiting = (
        client.predictions.create(model="acme/echo", input={"delay_s": 60}) for _ in range(2)
    )
    for p in (waiting, running):
        p.cancel()
        p.wait()
        assert (p.status, p.error) == ("canceled", None)


def test_cancel_after(service: Service, client: Client) -> None:
    """A deadline ends what runs and what waits, in a status that the clients know."""
    path = "/v1/models/acme/echo/predictions"
    body = {"input": {"delay_s": 60}}
    ids = [
        service.http.post(path, json=body, headers={"Cancel-After": after}).json()["id"]
        for after in ("1s", "0.3")
    ]
    for prediction_id in ids:
        p = client.predictions.get(prediction_id)
        p.wait()
        assert p.status == "canceled"
        assert "deadline" in (p.error or "")


def test_list(client: Client) -> None:
    """Newest first, page by page, each once."""
    made = [
        client.predictions.create(model="acme/parrot", input={"text": f"n{i}"}) for i in range(3)
    ]
    for p in made:
        p.wait()
    page = client.predictions.list()
    assert [p.id for p in page.results[:3]] == [p.id for p in reversed(made)]
    assert page.previous is None
    every = [p.id for page in paginate(client.predictions.list) for p in page]
    assert len(every) == len(set(every))
    assert set(every) >= {p.id for p in made}


def test_files(service: Service, client: Client, tmp_path: Path) -> None:
    """Uploaded once, used by two predictions, deleted; nothing stays in the spool."""
    body = bytes(range(256)) * 5000
    path = tmp_path / "some photo.PNG"
    path.write_bytes(body)
    file = client.files.create(path, metadata={"from": "a test"})
    assert (file.name, file.size, file.content_type) == ("some photo.PNG", len(body), "image/png")
    assert file.checksums["sha256"] == hashlib.sha256(body).hexdigest()
    assert file.metadata == {"from": "a test"}
    assert client.files.get(file.id).dict() == file.dict()
    assert [f.id for f in client.files.list()] == [file.id]
    for _ in range(2):
        output = run(client, "acme/echo", input={"file": file.urls["get"]})
        assert output["file_sha256"] == file.etag
        assert output["file_suffix"] == ".png"
    elsewhere = file.urls["get"].replace(service.url, "https://tunnel.invalid")
    assert run(client, "acme/echo", input={"file": elsewhere})["file_bytes"] == len(body)
    assert len(service.spooled()) == 1
    assert client.files.delete(file.id)
    assert service.spooled() == []
    with pytest.raises(ReplicateError, match="404"):
        client.files.get(file.id)


def test_a_file_as_an_input(service: Service, client: Client, tmp_path: Path) -> None:
    """The client uploads an open file by itself, or sends it as a data: URI."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello")
    with path.open("rb") as file:
        assert run(client, "acme/echo", input={"file": file})["file_bytes"] == 5
    with path.open("rb") as file:
        output = run(client, "acme/echo", input={"file": file}, file_encoding_strategy="base64")
        assert output["file_bytes"] == 5
    for f in client.files.list():
        client.files.delete(f.id)
    assert service.spooled() == []


def test_models_account_versions(client: Client) -> None:
    """What there is, with the model's real inputs."""
    assert {m.name for m in client.models.list()} == {"echo", "parrot"}
    model = client.models.get("acme/echo")
    assert (model.owner, model.name) == ("acme", "echo")
    (version,) = model.versions.list()
    inputs = version.openapi_schema["components"]["schemas"]["Input"]["properties"]
    assert inputs["number"]["maximum"] == 1
    assert version.cog_version == "0.23.1"
    assert client.accounts.current().username == "callme"


def test_errors(service: Service, client: Client) -> None:
    """Unknown models, versions, predictions and bad inputs, as the client tells them."""
    for ref, status in (("acme/nosuch", 404), ("acme/echo:0000", 422)):
        with pytest.raises(ReplicateError) as caught:
            run(client, ref, input={})
        assert caught.value.status == status
    with pytest.raises(ReplicateError) as caught:
        client.predictions.create(model="acme/echo", input={"number": 2})
    assert caught.value.status == 422
    assert "number" in (caught.value.detail or "")
    with pytest.raises(ReplicateError) as caught:
        client.predictions.get("nosuch")
    assert caught.value.status == 404
    with pytest.raises(ReplicateError) as caught:
        Client(api_token=KEY[:-1], base_url=service.url).accounts.current()
    assert caught.value.status == 401
    path = "/v1/models/acme/echo/predictions"
    for body in (
        {"input": 1},
        {"input": {}, "webhook": 1},
        {"input": {}, "webhook": "file:///etc/passwd"},
        {"input": {}, "webhook": "https://a.example/", "webhook_events_filter": ["nosuch"]},
    ):
        answer = service.http.post(path, json=body)
        assert (answer.status_code, bool(answer.json()["invalid_fields"])) == (422, True)
    assert service.http.get("/v1/predictions?cursor=nosuch").status_code == 400
    assert service.http.post("/v1/files", files={"other": ("a", b"x")}).status_code == 422
    assert service.http.post("/v1/trainings", json={}).status_code == 405


def test_webhooks(client: Client, inbox: Inbox) -> None:
    """Start, what it prints and puts out, and end, each verified by the client with the secret it
    fetched. How much is told in the middle depends on how quick the receiver is: nothing, had it
    not ended with the start before the prediction ends."""
    slow = {"text": "w", "delay_s": 1}
    p = client.predictions.create(model="acme/echo", input=slow, webhook=inbox.url)
    bodies = completed(inbox, p.id)
    *before, end = bodies
    assert {b["status"] for b in before} == {"processing"}
    assert (before[0]["logs"], before[0]["output"]) == ("", None)
    assert before[-1]["logs"] == "echo w []\n"
    assert (end["status"], end["output"]["text"]) == ("succeeded", "w")
    assert Prediction(**bodies[-1]).dict() == client.predictions.get(p.id).dict()
    secret = client.webhooks.default.secret()
    for headers, body in inbox.got:
        Webhooks.validate(headers=headers, body=body.decode(), secret=secret, tolerance=60)
        with pytest.raises(InvalidSignatureError):
            Webhooks.validate(headers=headers, body=body.decode() + " ", secret=secret)
    filtered = client.predictions.create(
        model="acme/echo",
        input={"mode": "raise"},
        webhook=inbox.url,
        webhook_events_filter=["completed"],
    )
    assert [b["status"] for b in completed(inbox, filtered.id)] == ["failed"]


def test_a_webhook_by_cogs_api(service: Service, inbox: Inbox) -> None:
    """The same, in the same shape."""
    body = {"input": {"text": "c"}, "webhook": inbox.url, "webhook_events_filter": ["completed"]}
    p = service.http.post("/models/echo/predictions", json=body).json()
    assert p["status"] == "succeeded"
    (told,) = completed(inbox, p["id"])
    assert (told["model"], told["output"]["text"]) == ("callme/echo", "c")


def test_a_webhook_survives_kill_9(echo_packages: Path, tmp_path: Path) -> None:
    """The router is killed between two attempts; the next one delivers, under the same id."""
    env = {"CALLME_ALLOW_PRIVATE_URLS": "true"}
    with webhook_receiver() as inbox:
        inbox.refuse = 1
        body = {"input": {}, "webhook": inbox.url, "webhook_events_filter": ["completed"]}
        with running_service(echo_packages, tmp_path / "state", env) as service:
            p = service.http.post("/v1/models/a/echo/predictions", json=body).json()
            wait_until(lambda: inbox.got)
            service.child.kill()
            service.child.wait()
        with running_service(echo_packages, tmp_path / "state", env) as service:
            wait_until(lambda: len(inbox.got) >= 2)  # at least once
            done = service.http.get(f"/v1/predictions/{p['id']}").json()
        assert {h["webhook-id"] for h, _ in inbox.got} == {f"msg_{p['id']}_completed"}
        assert done["output"]["text"] == "hello"


def test_webhooks_to_private_places_are_refused(echo_packages: Path, tmp_path: Path) -> None:
    """As inputs are: 422, and nothing runs."""
    with running_service(echo_packages, tmp_path / "state") as service:
        for path in ("/v1/models/a/echo/predictions", "/models/echo/predictions"):
            body = {"input": {}, "webhook": "http://169.254.169.254/"}
            answer = service.http.post(path, json=body)
            assert answer.status_code == 422
            assert "public internet" in answer.text
        assert service.http.get("/v1/predictions").json()["results"] == []


def test_files_survive_a_restart(echo_packages: Path, tmp_path: Path) -> None:
    """An uploaded file is there after kill -9, and other files in the spool are not."""
    with running_service(echo_packages, tmp_path / "state") as service:
        made = service.http.post("/v1/files", files={"content": ("a.txt", b"hello")})
        assert made.status_code == 201
        service.child.kill()
        service.child.wait()
    (tmp_path / "state" / "spool" / "stranger").write_bytes(b"x")
    with running_service(echo_packages, tmp_path / "state") as service:
        assert len(service.spooled()) == 1
        url = made.json()["urls"]["get"]
        answer = service.http.post("/models/echo/predictions", json={"input": {"file": url}})
        assert answer.json()["output"]["file_bytes"] == 5


# ---- npm's client ------------------------------------------------------------------------

JAVASCRIPT = Path(__file__).with_name("replicate_client.cjs").read_text()
VALIDATE = Path(__file__).with_name("validate_webhook.cjs").read_text()


def node(folder: Path, script: str, given: dict[str, Any]) -> Any:
    """What the script prints, a line of JSON, when it is given this."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs node on PATH, for npm's replicate")
    done = subprocess.run(
        [program, "-e", script],
        cwd=folder,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_npm_client(service: Service, inbox: Inbox) -> None:
    """run, wait, predictions, files, pages, account and validateWebhook of npm's client."""
    folder = npm_folder(NPM_CLIENT)
    told = node(folder, JAVASCRIPT, {"url": service.url, "key": KEY, "inbox": inbox.url})
    assert told["run"]["text"] == "hi"
    assert told["version"]["text"] == "exact"
    assert told["slow"]["text"] == "slow"
    assert told["seen"][0] == "starting"
    assert told["created"] == "starting"
    assert told["waited"]["output"]["text"] == "poll"
    assert told["got"] == told["waited"]
    assert told["canceled"] == "canceled"
    assert "boom" in told["failed"]
    assert told["missing"] == 404
    file = told["file"]
    assert (file["name"], file["size"], file["metadata"]) == ("a.txt", 5, {"from": "npm"})
    for way in ("byUrl", "byBlob", "byDataUri"):
        assert told[way]["file_sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert told["files"] == 0
    assert service.spooled() == []
    assert told["pages"] >= 10
    assert told["account"] == "callme"
    (body,) = completed(inbox, told["hooked"])
    assert body["output"]["text"] == "w"
    headers, raw = next((h, b) for h, b in inbox.got if told["hooked"].encode() in b)
    lower = {k.lower(): v for k, v in headers.items()}
    given = {"headers": lower, "body": raw.decode(), "secret": told["secret"]}
    assert node(folder, VALIDATE, given) == [True, False]


def test_data_uris_are_bounded(service: Service) -> None:
    """A body beyond the limit is refused, as everywhere."""
    uri = "data:;base64," + base64.b64encode(b"x" * (26 << 20)).decode()
    try:
        answer = service.http.post(
            "/v1/models/acme/echo/predictions", json={"input": {"file": uri}}
        )
        assert answer.status_code == 413
        assert answer.json()["code"] == "payload_too_large"
    except httpx.WriteError:
        pass  # the server closed while we still sent
