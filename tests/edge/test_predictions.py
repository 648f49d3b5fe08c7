"""The functions `predictions` and `prediction_webhook` against the real SQL and a stand-in box."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from box import JSON, Answer, Box, Received, running_box
from deno_server import ROOT, EdgeFunction, edge_process
from postgres import Database

psycopg = pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from supabase_project import PUBLIC_KEY, Project, running_project, token_of  # noqa: E402

A = "aaaaaaaa-0000-0000-0000-00000000000a"
B = "bbbbbbbb-0000-0000-0000-00000000000b"
FUNCTIONS = ROOT / "supabase" / "functions"
SECRET = base64.b64encode(b"s" * 32).decode()
KEY = "ck_test_key_of_the_box"

NOT_JSON = [
    *(
        b"{",
        b"[]",
        b"7",
        b'{"model"}',
        b'{"model":}',
        b'{"model":"m"',
        b'{"model":"m}',
        b"{}x",
        b"{,}",
    ),
    *(
        b'{"model":"m","input":{]}',
        b'{"model":"m","input":{"a":[}}',
        b'{"model":"m","input":{nul}}',
    ),
    *(b'{"model":"m"}{"model":"m"}', b'{"model":"\\x"}', b'{"model":"m" "input":{}}'),
]


def accepted(_: Received) -> Answer:
    """What the box says to a prediction that it takes."""
    return Answer(202, b'{"status": "starting"}')


@dataclass
class App:
    """A project with both functions and a box."""

    project: Project
    box: Box
    predictions: EdgeFunction
    webhook: EdgeFunction
    http: httpx.Client

    def ask(self, method: str, path: str = "", user: str | None = A, **body: Any) -> httpx.Response:
        """A request of the web app."""
        headers = {"apikey": PUBLIC_KEY}
        if user:
            headers["Authorization"] = f"Bearer {token_of(user)}"
        url = f"{self.predictions.url}/predictions{path}"
        return self.http.request(method, url, headers=headers, json=body or None)

    def post(self, body: bytes) -> httpx.Response:
        """A request with this body."""
        headers = {"apikey": PUBLIC_KEY, "Authorization": f"Bearer {token_of(A)}"}
        return self.http.post(f"{self.predictions.url}/predictions", content=body, headers=headers)

    def run(self, model: str = "echo", **body: Any) -> dict[str, Any]:
        """Make a prediction, which the box takes."""
        response = self.ask("POST", model=model, **body)
        assert response.status_code == 201, response.text
        row: dict[str, Any] = response.json()
        return row

    def puts(self) -> list[Received]:
        """The predictions that the box was given."""
        return [r for r in self.box.received if r.method == "PUT"]

    def report(
        self, event: dict[str, Any], *, url: str = "", secret: str = SECRET, late_s: float = 0
    ) -> httpx.Response:
        """A webhook of the box about a prediction, signed as the router signs."""
        body = json.dumps(event, separators=(",", ":")).encode()
        stamp = str(int(time.time() - late_s))
        signed = f"msg_1.{stamp}.".encode() + body
        digest = hmac.digest(base64.b64decode(secret), signed, hashlib.sha256)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        return self.http.post(url or self.webhook_url(event["id"]), content=body, headers=headers)

    def webhook_url(self, prediction: str) -> str:
        """The URL that the box was given for this prediction."""
        put = next(r for r in self.puts() if r.path.endswith(prediction))
        url: str = json.loads(put.body)["webhook"]
        return url

    def sweep(self) -> httpx.Response:
        """What pg_cron does."""
        self.project.database.run("update callme.predictions set next_try_at = now()")
        return self.ask("POST", "/sweep", user=None)


@contextmanager
def running_app(database: Database) -> Iterator[App]:
    """Both functions in Deno, the project's stand-in and the box."""
    with ExitStack() as stack:
        project = stack.enter_context(running_project(database))
        box = stack.enter_context(running_box(accepted))
        env = {**project.env(), "CALLME_WEBHOOK_SECRET": f"whsec_{SECRET}"}
        hook = edge_process(env, folder=FUNCTIONS / "prediction_webhook")
        webhook = stack.enter_context(hook)
        env |= {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_KEY_ID": "web"}
        env["CALLME_FUNCTIONS_URL"] = webhook.url
        predictions = stack.enter_context(edge_process(env, folder=FUNCTIONS / "predictions"))
        http = stack.enter_context(httpx.Client(timeout=240))
        yield App(project, box, predictions, webhook, http)


@pytest.fixture(scope="module")
def running(cluster: Database) -> Iterator[App]:
    """One for all tests of this file: four processes."""
    with running_app(cluster) as app:
        yield app


@pytest.fixture
def app(running: App) -> App:
    """With two users, and nothing that an earlier test has left."""
    running.project.database.clear()
    running.project.database.run(f"insert into auth.users (id) values ('{A}'), ('{B}')")
    running.project.files.clear()
    running.project.down = False
    running.project.exposed = {"public", "callme"}
    running.box.received.clear()
    running.box.behaviour = accepted
    return running


def upload(app: App, name: str, data: bytes, user: str = A) -> str:
    """A file of the user in Storage, as the page uploads it."""
    url = f"{app.project.url}/storage/v1/object/callme-inputs/{user}/{name}"
    headers = {"apikey": PUBLIC_KEY, "Authorization": f"Bearer {token_of(user)}"}
    app.http.post(url, content=data, headers=headers).raise_for_status()
    return f"storage://callme-inputs/{user}/{name}"


def test_one_call_makes_the_row_and_asks_the_box(app: App) -> None:
    """The box gets the row's id, a URL of the file that works, and where to report; signed."""
    reference = upload(app, "clip.wav", b"RIFF" * 1000)
    row = app.run("fluency", input={"audio": [{"file": reference}], "language": "en"})
    assert (row["status"], row["user_id"], row["progress"]) == ("starting", A, None)
    assert "tries" not in row
    [put] = app.puts()
    assert put.path == f"/models/fluency/predictions/{row['id']}"
    assert put.headers["Prefer"] == "respond-async"
    assert put.headers["X-Callme-Signature"].startswith("v2=")
    body = json.loads(put.body)
    assert app.http.get(body["input"]["audio"][0]["file"]).content == b"RIFF" * 1000
    assert body["input"]["language"] == "en"
    assert body["webhook_events_filter"] == ["start", "progress", "files", "completed"]
    [kept] = app.project.rows()
    assert kept["sent_at"] is not None
    assert kept["box"] == "web"
    assert kept["input"]["audio"][0]["file"] == reference, "no URL in the row"


def test_a_key_makes_one_prediction(app: App) -> None:
    """However often and however many at the same time; another user may use the same key."""
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: app.ask("POST", model="echo", key="k"), range(8)))
    assert sorted(r.status_code for r in asked) == [200] * 7 + [201]
    assert len({r.json()["id"] for r in asked}) == 1
    assert len(app.puts()) == 1
    assert app.ask("POST", model="echo", key="k", user=B).status_code == 201
    assert app.ask("POST", model="other", key="k").json()["error"]["code"] == "conflict"


def test_events_change_the_row_and_files_go_to_storage(app: App) -> None:
    """Late, twice and out of order; the picture goes from the box to Storage, not through here."""
    row = app.run("sketch2real")
    common = {"id": row["id"], "model": "callme/sketch2real"}
    late = {**common, "status": "processing", "at": 1000, "progress": 10, "log_tail": "10%"}
    half = {**common, "status": "processing", "at": 2000, "progress": 50, "log_tail": "50%"}
    for event in (half, late, half):
        assert app.report(event).status_code == 204
    [kept] = app.project.rows()
    assert (kept["status"], kept["progress"], kept["log_tail"]) == ("processing", 50, "50%")
    files = [{"place": ["image"], "name": "output-image.webp", "media_type": "image/webp"}]
    asked = app.report({"id": row["id"], "event": "files", "files": files})
    [(name, url)] = asked.json()["uploads"].items()
    # As the router does: unsigned, and more than once.
    for picture in (b"old", b"RIFFpicture"):
        app.http.put(url, content=picture, headers={"x-upsert": "true"}).raise_for_status()
    done = {**common, "status": "succeeded", "at": 3000, "progress": 100, "log_tail": "done"}
    done |= {"output": {"image": None, "seed": 7}, "output_files": files, "metrics": {"n": 1}}
    assert app.report(done).status_code == 204
    assert app.report(done).status_code == 204
    assert app.report(late).status_code == 204
    [kept] = app.project.rows()
    path = f"{A}/{row['id']}/{name}"
    assert kept["output"] == {"image": f"storage://callme-outputs/{path}", "seed": 7}
    assert (kept["status"], kept["progress"]) == ("succeeded", 100)
    assert app.project.files["callme-outputs", path][1] == b"RIFFpicture"
    assert app.report({"id": row["id"], "event": "files", "files": files}).json() == {"uploads": {}}


def test_what_is_no_webhook_of_the_box_changes_nothing(app: App) -> None:
    """Wrong secret, too old, another prediction's URL, another id in the body, a forged token."""
    row, other = app.run(), app.run()
    event = {"id": row["id"], "status": "succeeded", "at": 1, "output": 1}
    url = app.webhook_url(row["id"])
    forged = url[:-1] + ("0" if url[-1] != "0" else "1")
    attempts = [
        app.report(event, secret=base64.b64encode(b"x" * 32).decode()),
        app.report(event, late_s=301),
        app.report(event, late_s=-301),
        app.report(event, url=app.webhook_url(other["id"])),
        app.report(event, url=forged),
        app.report(event, url=url.split("?")[0]),
        app.http.post(url, content=json.dumps(event)),
    ]
    assert [r.status_code for r in attempts] == [401] * 7
    assert {r["status"] for r in app.project.rows()} == {"starting"}
    app.project.database.run("truncate callme.predictions")
    assert app.report(event).status_code == 410, "the box need not try again"


def test_the_box_is_away_and_comes_back(app: App) -> None:
    """The row stays; a sweep, or the same key again, sends it. Twice is once at the box."""
    app.box.behaviour = lambda _: Answer(503, b"{}", JSON)
    row = app.run(key="k")
    assert (row["status"], row["sent_at"]) == ("starting", None)
    assert app.sweep().json()["tried"] == 1
    assert app.project.rows()[0]["sent_at"] is None
    assert app.ask("POST", "/sweep", user=None).json()["tried"] == 0, "not due yet"
    # It had arrived: the answer was lost on its way.
    app.box.behaviour = lambda _: Answer(409, b'{"error": {"code": "id_conflict"}}', JSON)
    assert app.sweep().json()["tried"] == 1
    [kept] = app.project.rows()
    assert (kept["status"], kept["sent_at"] is not None) == ("starting", True)
    assert app.sweep().json()["tried"] == 0


def test_what_the_box_refuses_fails_with_its_words(app: App) -> None:
    """A wrong input is not tried again; a full queue and a wrong key are."""
    refusal = {"error": {"code": "invalid_input", "message": "Cannot use 'seed': not a number"}}
    app.box.behaviour = lambda _: Answer(422, json.dumps(refusal).encode(), JSON)
    row = app.run(input={"seed": "x"})
    assert (row["status"], row["error_code"]) == ("failed", "invalid_input")
    assert row["error"] == "Cannot use 'seed': not a number"
    app.project.database.run("update callme.settings set running = 100")
    for status in (429, 401, 502):
        answer = Answer(status, b"<html>", {})
        app.box.behaviour = partial(lambda answer, _: answer, answer)
        assert app.run()["status"] == "starting"


def test_a_file_that_is_not_there_fails_at_once(app: App) -> None:
    """And another user's file is refused by the database."""
    row = app.run(input={"image": f"storage://callme-inputs/{A}/none.png"})
    assert (row["status"], row["error_code"]) == ("failed", "invalid_input")
    theirs = upload(app, "secret.png", b"png", user=B)
    refused = app.ask("POST", model="echo", input={"image": theirs})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert app.puts() == []


def test_cancel_and_forget(app: App) -> None:
    """Cancel reaches the box; nobody else may; what runs is not deleted; files go with the row."""
    row = app.run()
    path = f"/{row['id']}"
    assert app.ask("DELETE", path, user=B).status_code == 404
    assert app.ask("DELETE", f"{path}?forget=true").status_code == 409
    app.box.behaviour = lambda _: Answer(503, b"{}", JSON)
    assert app.ask("DELETE", path).status_code == 202
    app.box.behaviour = lambda _: Answer(200, b"{}", JSON)
    assert app.sweep().json()["tried"] == 1, "the box was away when it was cancelled"
    cancels = [r.path for r in app.box.received if r.path.endswith("/cancel")]
    assert cancels == [f"/models/echo/predictions/{row['id']}/cancel"] * 2
    app.report({"id": row["id"], "status": "canceled", "at": 1})
    assert app.ask("DELETE", path).json()["status"] == "canceled"
    name = f"{A}/{row['id']}/x.png"
    app.project.files["callme-outputs", name] = "image/png", b"png"
    app.project.database.run(
        f"insert into storage.objects (bucket_id, name) values ('callme-outputs', '{name}')"
    )
    assert app.ask("DELETE", f"{path}?forget=true", user=B).status_code == 404
    assert app.ask("DELETE", f"{path}?forget=true").status_code == 204
    assert app.project.rows() == []
    assert app.project.files == {}
    assert app.project.database.run("select count(*) from callme.trash") == "0"


def test_errors_are_said_in_one_shape(app: App) -> None:
    """Without a token, with a wrong one, over the quota, with a wrong body, without the schema."""
    cases = [
        (app.ask("POST", user=None, model="echo"), 401, "unauthorized"),
        (app.ask("POST", model=7), 400, "invalid_input"),
        (app.ask("POST", model="echo", input=[]), 400, "invalid_input"),
        (app.ask("POST", model="No/model"), 400, "invalid_input"),
        (app.ask("POST", model="echo", input={"t": "x" * 300_000}), 400, "invalid_input"),
        (app.ask("POST", model="echo", input={"t": "x" * 400_000}), 413, "payload_too_large"),
        (app.ask("POST"), 400, "empty_body"),
        (app.ask("POST", model="echo", key=""), 400, "invalid_input"),
        (app.ask("POST", model="echo", input=None), 400, "invalid_input"),
        *((app.post(body), 400, "invalid_json") for body in NOT_JSON),
        (app.ask("PUT"), 405, "method_not_allowed"),
        (app.ask("DELETE", "/not-an-id"), 404, "not_found"),
    ]
    app.run(), app.run()
    cases.append((app.ask("POST", model="echo"), 429, "quota_exceeded"))
    app.project.exposed = {"public"}
    cases.append((app.ask("POST", model="echo"), 503, "not_configured"))
    app.project.down = True
    cases.append((app.ask("POST", model="echo"), 503, "service_unavailable"))
    expired = {"Authorization": f"Bearer {token_of(A, -60)}", "apikey": PUBLIC_KEY}
    app.project.down = False
    app.project.exposed = {"callme"}
    url = f"{app.predictions.url}/predictions"
    late = app.http.post(url, json={"model": "echo"}, headers=expired)
    cases.append((late, 401, "unauthorized"))
    for response, status, code in cases:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_a_browser_may_delete(app: App) -> None:
    """The preflight allows what the client sends."""
    asked = app.http.options(
        f"{app.predictions.url}/predictions/{A}",
        headers={"Origin": "https://a.example", "Access-Control-Request-Method": "DELETE"},
    )
    assert asked.status_code == 204
    assert "DELETE" in asked.headers["Access-Control-Allow-Methods"]


def test_the_log_has_no_inputs_and_no_keys(app: App) -> None:
    """One line a request, with the prediction's id."""
    reference = upload(app, "clip.wav", b"RIFF")
    row = app.run(input={"secret_word": "xyzzy", "audio": reference})
    app.report({"id": row["id"], "status": "processing", "at": 1, "log_tail": "xyzzy"})
    deadline = time.monotonic() + 60  # a line is written after the answer
    lines: list[str] = []
    while sum(row["id"] in line for line in lines) < 2:
        assert time.monotonic() < deadline, lines
        lines = app.predictions.lines + app.webhook.lines
    assert sum(row["id"] in line for line in lines) == 2
    token = parse_qs(urlsplit(app.webhook_url(row["id"])).query)["token"][0]
    for secret in ("xyzzy", KEY, SECRET, token, PUBLIC_KEY, "sb_secret"):
        assert not any(secret in line for line in lines), secret
