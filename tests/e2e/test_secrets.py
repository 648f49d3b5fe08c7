"""Secret inputs come back nowhere, and lie on disk sealed and only until their prediction ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.remote_boxes import front
from tests.e2e.service import Service, running_service
from tests.e2e.webhook_receiver import Inbox, webhook_receiver
from tests.package_copies import packages_in
from tests.waiting import wait_until

REDACTED = "**********"
TOKEN = "tok-3f9a-the-callers-own"  # noqa: S105
MORE = ["first-9c1e-of-several", "second-4b7d-of-several"]
HINT = "hint-77e1-rarely-given"
SECRETS = (TOKEN, *MORE, HINT)
INPUT = {"token": TOKEN, "more": MORE, "hint": HINT, "label": "plain"}
SHOWN = {"token": REDACTED, "more": [REDACTED] * 2, "hint": REDACTED, "label": "plain"}
EVENTS = {"Accept": "text/event-stream"}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with secret inputs; one streams."""
    return packages_in(tmp_path_factory.mktemp("packages"), "keeper", "whisper")


@pytest.fixture(scope="module")
def service(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A router of it that may call webhooks on this machine."""
    state = tmp_path_factory.mktemp("secrets") / "state"
    with running_service(packages, state, {"CALLME_ALLOW_PRIVATE_URLS": "true"}) as running:
        yield running


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    """Who is called back."""
    with webhook_receiver() as inbox:
        yield inbox


def digest_of(secret: str) -> str:
    """As the model shows what it got."""
    return hashlib.sha256(secret.encode()).hexdigest()


OUTPUT = {
    "token": digest_of(TOKEN),
    "more": [digest_of(m) for m in MORE],
    "hint": digest_of(HINT),
    "fallback": digest_of("as-shipped"),
}


def holding(folder: Path, needle: bytes) -> list[str]:
    """The files below with these bytes in them: database, its log, spool, temp folders, all."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and needle in path.read_bytes():
                found.append(str(path.relative_to(folder)))
        except FileNotFoundError:
            continue
    return found


def assert_hidden(service: Service, *texts: str) -> None:
    """No secret in these answers, in the log, or in clear anywhere under the state folder."""
    for secret in SECRETS:
        for text in (*texts, service.log()):
            assert secret not in text
        assert holding(service.state, secret.encode()) == []


def ended(http: httpx.Client, path: str) -> dict[str, Any]:
    """The prediction when it has ended."""

    def look() -> dict[str, Any] | None:
        view: dict[str, Any] = http.get(path).json()
        return view if view["status"] not in ("starting", "processing") else None

    found: dict[str, Any] = wait_until(look)
    return found


def form(**more: str) -> list[tuple[str, tuple[None, str]]]:
    """INPUT as a form."""
    pairs = [("token", TOKEN), *(("more", m) for m in MORE), ("hint", HINT), ("label", "plain")]
    return [(name, (None, value)) for name, value in [*pairs, *more.items()]]


def test_the_model_gets_the_real_values(service: Service) -> None:
    """In every API, and their answers and lists hold none of them."""
    app = service.http.post("/keeper", files=form())
    assert app.json() == OUTPUT
    cog = service.http.post("/models/keeper/predictions", json={"input": INPUT})
    made = {"version": "callme/keeper", "input": INPUT}
    replicate = service.http.post("/v1/predictions", json=made, headers={"Prefer": "wait"})
    for answer in (cog, replicate):
        assert answer.json()["input"] == SHOWN
    later = ended(service.http, f"/v1/predictions/{replicate.json()['id']}")
    assert (later["input"], later["output"]) == (SHOWN, OUTPUT)
    listed = service.http.get("/v1/predictions").text
    status = service.http.get("/status").text
    assert_hidden(service, app.text, cog.text, replicate.text, listed, status)


def test_sealed_while_it_runs_and_gone_with_its_end(service: Service, inbox: Inbox) -> None:
    """Not a byte of what was sealed is left anywhere below the state folder, nor a webhook that
    shows it."""
    body = {
        "input": {**INPUT, "delay_s": 2},
        "webhook": inbox.url,
        "webhook_events_filter": ["start", "output", "logs", "completed"],
    }
    path = "/models/keeper/predictions"
    answer = service.http.post(path, json=body, headers=ASYNC)
    assert answer.status_code == 202
    prediction_id = answer.json()["id"]
    sealed_file = service.state / "sealed" / prediction_id
    sealed = sealed_file.read_bytes()
    assert sealed_file.stat().st_mode & 0o777 == 0o600
    running = service.http.get(f"{path}/{prediction_id}")
    assert_hidden(service, answer.text, running.text)
    assert ended(service.http, f"{path}/{prediction_id}")["output"] == OUTPUT
    bodies = wait_until(
        lambda: [b for b in inbox.of(prediction_id) if b["status"] == "succeeded"], 30
    )
    assert bodies[-1]["input"] == {**SHOWN, "delay_s": 2}
    wait_until(lambda: not sealed_file.exists())
    for start in range(0, len(sealed) - 16, 16):
        assert holding(service.state, sealed[start : start + 16]) == []
    assert_hidden(service, *(body.decode() for _, body in inbox.got))


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": [TOKEN]},
        {"token": {"value": TOKEN}},
        {"more": TOKEN},
        {"more": [*MORE, {"value": TOKEN}]},
        {"more": [[TOKEN]]},
        {"token": TOKEN, "mode": "invalid"},
        {"token": TOKEN, "mode": "raise"},
        {"token": TOKEN, "label": 5},
    ],
    ids=json.dumps,
)
def test_what_is_wrong_is_told_without_it(service: Service, wrong: dict[str, Any]) -> None:
    """The router's objection, the model's, and its exception, in every API."""
    answers = [
        service.http.post("/models/keeper/predictions", json={"input": wrong}),
        service.http.put("/models/keeper/predictions/wrong-1", json={"input": wrong}),
        service.http.post("/v1/models/callme/keeper/predictions", json={"input": wrong}),
        service.http.post(
            "/keeper",
            files={k: (None, v if isinstance(v, str) else json.dumps(v)) for k, v in wrong.items()},
        ),
    ]
    for answer in answers:
        if answer.status_code == 422:
            assert next(iter(wrong)) in answer.text or "label" in answer.text
    listed = service.http.get("/v1/predictions").text
    assert_hidden(service, *(answer.text for answer in answers), listed)


@pytest.mark.parametrize("end", ["well", "raise"])
def test_what_is_streamed(service: Service, inbox: Inbox, end: str) -> None:
    """Every event, of Cog's stream, of Replicate's, of the box's own and of webhooks: the model
    has the secret, the first event shows it redacted, and no event has it."""
    given = {"token": TOKEN, "end": end, "delay_s": 0.1}
    told: list[str] = []

    def follow(method: str, url: str, **more: Any) -> str:
        with httpx.stream(method, url, headers=EVENTS, timeout=60, **more) as response:
            assert response.status_code == 200
            return "".join(response.iter_text())

    with (
        ThreadPoolExecutor() as pool,
        httpx.stream("GET", f"{service.url}/events", timeout=60) as all_events,
    ):
        watching = pool.submit(
            lambda: told.extend(until_ended(all_events.iter_lines(), "whisper", 2))
        )
        cog = follow("POST", f"{service.url}/models/whisper/predictions", json={"input": given})
        made = service.http.post(
            "/v1/models/a/whisper/predictions",
            json={
                "input": given,
                "webhook": inbox.url,
                "webhook_events_filter": ["start", "output", "logs", "completed"],
            },
        )
        replicate = follow("GET", made.json()["urls"]["stream"])
        watching.result(60)
    wait_until(lambda: any(b["completed_at"] for b in inbox.of(made.json()["id"])), 30)
    assert f'"token":"{REDACTED}"' in cog
    for stream in (cog, replicate):
        assert digest_of(TOKEN)[:8] in stream
        assert f"0 of {REDACTED}" in stream
        assert (f"401 for {REDACTED}" in stream) == (end == "raise")
    assert REDACTED in cog.partition('"shown"')[2][:60]  # a metric that the model recorded
    assert_hidden(service, cog, replicate, *told, *(body.decode() for _, body in inbox.got))


def until_ended(lines: Iterator[str], model: str, predictions: int) -> Iterator[str]:
    """The lines of /events until so many predictions of the model have ended."""
    for line in lines:
        yield line
        ended = '"succeeded"' in line or '"failed"' in line
        predictions -= model in line and ended
        if not predictions:
            return


def test_a_broken_list_of_secrets_in_a_form(service: Service) -> None:
    """JSON that cannot be read is not shown either."""
    answer = service.http.post("/keeper", files={"more": (None, f'["{TOKEN}", ')})
    assert answer.status_code == 422
    assert_hidden(service, answer.text)


def test_an_upload_in_a_secrets_place(service: Service) -> None:
    """Refused, and nothing of the file is left."""
    answer = service.http.post("/keeper", files={"token": ("a.txt", TOKEN.encode())})
    assert answer.status_code == 422
    assert_hidden(service, answer.text)


def test_a_repeated_put_is_known_without_the_secret(
    service: Service, packages: Path, tmp_path: Path
) -> None:
    """Another secret is another request; from what is kept, a guess cannot be checked."""
    path, pin = "/models/keeper/predictions/order-1", "7391"
    body = {"input": {"token": pin}}
    assert service.http.put(path, json=body).json()["output"]["token"] == digest_of(pin)
    assert service.http.put(path, json=body).json()["status"] == "succeeded"
    other = service.http.put(path, json={"input": {"token": "7392"}})
    assert other.status_code == 409
    kept = digest_in(service, "order-1")
    assert len(kept) == 64
    with running_service(packages, tmp_path / "state") as another_box:
        another_box.http.put(path, json=body)
        # The same request: what is kept of it depends on a key that only that box has.
        assert digest_in(another_box, "order-1") != kept


def digest_in(service: Service, prediction_id: str) -> str:
    """What the database has of the request."""
    query = "SELECT document FROM predictions WHERE id = ?"
    with contextlib.closing(sqlite3.connect(service.state / "predictions.sqlite3")) as database:
        (document,) = database.execute(query, (prediction_id,)).fetchone()
    digest: str = json.loads(document)["digest"]
    return digest


@pytest.mark.parametrize("kind", ["cog", "replicate"])
def test_a_model_on_another_box(service: Service, tmp_path: Path, kind: str) -> None:
    """It gets the real values there; neither box shows or keeps them."""
    remote = {
        "cog": f'url = "{service.url}/models/keeper"',
        "replicate": f'url = "{service.url}"\nmodel = "callme/keeper"',
    }
    toml = f'[models.far]\nbackend = "{kind}"\n[models.far.remote]\n{remote[kind]}\n'
    with front(tmp_path, toml) as far:
        body = {"input": {**INPUT, "mode": "hash"}}
        answer = far.http.put("/models/far/predictions/far-1", json=body)
        assert answer.json()["output"] == OUTPUT
        failed = far.http.post("/models/far/predictions", json={"input": {"token": [TOKEN]}})
        raised = far.http.post("/far", files=form(mode="raise"))
        assert (failed.status_code, raised.status_code) == (422, 500)
        wait_until(lambda: not list((far.state / "sealed").iterdir()))
        assert_hidden(far, answer.text, failed.text, raised.text)
        wait_until(lambda: not list((service.state / "sealed").iterdir()))
    assert_hidden(service, service.http.get("/v1/predictions").text)


def test_it_survives_a_kill_and_a_lost_key_is_told(packages: Path, tmp_path: Path) -> None:
    """After kill -9 the model gets the real values; without the box's key the prediction fails
    with a reason, and never runs without them. Nothing sealed is left in either case."""
    state = tmp_path / "state"
    path = "/models/keeper/predictions"
    body = {"input": {**INPUT, "delay_s": 3}}

    def start_and_kill(name: str) -> None:
        with running_service(packages, state) as service:
            made = service.http.put(f"{path}/{name}", json=body, headers=ASYNC)
            assert made.status_code == 202
            wait_until(
                lambda: service.http.get(f"{path}/{name}").json()["status"] == "processing", 60
            )
            service.child.send_signal(signal.SIGKILL)
            service.child.wait()
        assert (state / "sealed" / name).exists()
        (state / "sealed" / "left-over").write_bytes(b"of a router that was killed")

    start_and_kill("kept")
    with running_service(packages, state) as service:
        assert ended(service.http, f"{path}/kept")["output"] == OUTPUT
        wait_until(lambda: not list((state / "sealed").iterdir()))
        assert_hidden(service)
    start_and_kill("lost")
    (state / "box_key").unlink()
    with running_service(packages, state) as service:
        view = ended(service.http, f"{path}/lost")
        assert (view["status"], view["output"]) == ("failed", None)
        assert "secret inputs cannot be read" in view["error"]
        assert not list((state / "sealed").iterdir())
        assert_hidden(service)


def test_the_schema_keeps_a_default_secret(service: Service) -> None:
    """Whatever key reads the schema, a default of the package's own is not in it."""
    schema = service.http.get("/models/keeper/openapi.json").text
    assert "as-shipped" not in schema
    fallback = json.loads(schema)["components"]["schemas"]["Input"]["properties"]["fallback"]
    assert fallback["x-cog-secret"] is True
    assert "as-shipped" not in service.http.get("/openapi.json").text
