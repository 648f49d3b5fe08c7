"""Replicate as a back-end, against a stand-in that speaks its HTTP reference."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from router.models.process_interface import NotStartedError, StartError
from router.prediction import FileRef, Job, LogText, Outcome, Progress, Status
from router.remote import replicate
from router.remote.backend import Kind, RemoteOptions, make_backend
from router.remote.files import INLINE_BYTES
from router.remote.replicate import ReplicateBackend
from tests.router.remote.remote_stand_in import (
    StandIn,
    Step,
    answers,
    hang_up,
    never,
    stand_in,
)

pytestmark = pytest.mark.slow

VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
MODEL = {"owner": "me", "name": "m", "latest_version": {"id": VERSION, "openapi_schema": {"o": 1}}}
CREATE = "POST /v1/predictions"
POLL = "GET /v1/predictions/theirs"
CANCEL = "POST /v1/predictions/theirs/cancel"
TOKEN = "r8_" + "x" * 37
RUNNING = {"id": "theirs", "status": "processing"}


def ignore(progress: Progress) -> None:
    """Progress is not looked at here."""


def done(output: Any = "text") -> dict[str, Any]:
    """A prediction that succeeded."""
    metrics = {"predict_time": 1.5}
    return {"id": "theirs", "status": "succeeded", "output": output, "metrics": metrics}


def backend_of(url: str, model: str = "me/m", timeout_s: float = 60.0) -> ReplicateBackend:
    """The back-end as the router makes it."""
    return made_of(RemoteOptions(Kind.REPLICATE, (url,), model, TOKEN, timeout_s))


def made_of(options: RemoteOptions) -> ReplicateBackend:
    """The back-end of these options."""
    backend = make_backend(options)
    assert isinstance(backend, ReplicateBackend)
    return backend


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll often."""
    monkeypatch.setattr(replicate, "POLL_FIRST_S", 0.01)


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    """A Replicate that knows the model."""
    async with stand_in() as server:
        server.script["GET /v1/models/me/m"] = [MODEL]
        yield server


async def run(api: StandIn, job: Job | None = None, **options: Any) -> Outcome:
    """Ask whether it is there, and run one prediction."""
    return await run_on(backend_of(api.url, **options), job)


async def run_on(backend: ReplicateBackend, job: Job | None = None) -> Outcome:
    """The same on that back-end."""
    try:
        await backend.probe()
        return await backend.predict(job or Job("ours", {"prompt": "hi"}), ignore)
    finally:
        await backend.close()


def code(outcome: Outcome) -> str:
    """The code of its failure."""
    assert outcome.failure is not None, outcome
    return outcome.failure.code


async def test_the_latest_version_is_run(api: StandIn) -> None:
    """With the token; answered at once with an id, and bounded in what it can cost."""
    api.script[CREATE] = [answers(201, done({"x": 1}))]
    outcome = await run(api, timeout_s=30.0)
    assert (outcome.status, outcome.output, outcome.predict_time_s) == (
        Status.SUCCEEDED,
        {"x": 1},
        1.5,
    )
    (seen,) = api.of("POST", "/v1/predictions")
    assert seen.json == {"version": VERSION, "input": {"prompt": "hi"}}
    assert seen.headers["Authorization"] == f"Bearer {TOKEN}"
    assert "Prefer" not in seen.headers
    assert 5 <= int(seen.headers["Cancel-After"].removesuffix("s")) <= 30


async def test_a_named_version_and_a_deployment(api: StandIn) -> None:
    """A version is taken as it is; a deployment has its own paths."""
    api.script[CREATE] = [done()]
    await run(api, model="me/m:abc123")
    assert api.of("POST", "/v1/predictions")[0].json["version"] == "abc123"
    api.script["GET /v1/deployments/me/d"] = [{"owner": "me", "name": "d"}]
    api.script["POST /v1/deployments/me/d/predictions"] = [done()]
    await run(api, model="deployment:me/d")
    (seen,) = api.of("POST", "/v1/deployments/me/d/predictions")
    assert seen.json == {"input": {"prompt": "hi"}}


async def test_an_official_model_has_no_version(api: StandIn) -> None:
    """Replicate's own models are run by their name."""
    api.script["GET /v1/models/me/m"] = [{"owner": "me", "name": "m", "latest_version": None}]
    api.script["POST /v1/models/me/m/predictions"] = [done()]
    assert (await run(api)).output == "text"


@pytest.mark.parametrize("model", ["", "name", "a/b/c", "a/b:", "../x", "a/b c"])
def test_what_is_no_model(model: str) -> None:
    """Is told when the settings are read."""
    with pytest.raises(ValueError, match="owner/name"):
        backend_of("http://x", model)


async def test_it_is_polled_until_it_ends(api: StandIn) -> None:
    """By its own id there; what it prints is told as it comes."""
    api.script[CREATE] = [answers(201, {**RUNNING, "status": "starting"})]
    api.script[POLL] = [
        {**RUNNING, "logs": "1%\n"},
        hang_up,
        500,
        {**RUNNING, "logs": "1%\n50%\n"},
        done(),
    ]
    told: list[Progress] = []
    backend = backend_of(api.url)
    await backend.probe()
    outcome = await backend.predict(Job("ours", {}), told.append)
    await backend.close()
    assert outcome.output == "text"
    assert told == [LogText("1%\n"), LogText("50%\n")]


async def test_small_files_travel_along_and_large_ones_before(api: StandIn, tmp_path: Path) -> None:
    """256 KiB is Replicate's own line between the two."""
    small, large = tmp_path / "s.png", tmp_path / "l.wav"
    small.write_bytes(b"small")
    large.write_bytes(b"l" * (INLINE_BYTES + 1))
    files = (FileRef("image", str(small), "s.png"), FileRef("audio", str(large), "l.wav"))
    api.script["POST /v1/files"] = [answers(201, {"urls": {"get": f"{api.url}/v1/files/f1"}})]
    api.script[CREATE] = [done()]
    await run(api, Job("ours", {}, files))
    sent = api.of("POST", "/v1/predictions")[0].json["input"]
    assert sent["image"] == f"data:image/png;base64,{base64.b64encode(b'small').decode()}"
    assert sent["audio"] == f"{api.url}/v1/files/f1"
    (upload,) = api.of("POST", "/v1/files")
    assert large.read_bytes() in upload.body
    assert b'name="content"' in upload.body


async def test_an_upload_that_fails_has_begun_nothing(api: StandIn, tmp_path: Path) -> None:
    """So the prediction may be run again elsewhere."""
    large = tmp_path / "l.wav"
    large.write_bytes(b"l" * (INLINE_BYTES + 1))
    job = Job("ours", {}, (FileRef("audio", str(large), "l.wav"),))
    for step in (500, hang_up):
        api.script["POST /v1/files"] = [step]
        with pytest.raises(NotStartedError, match="upload"):
            await run(api, job)
    assert not api.of("POST", "/v1/predictions")


async def test_files_of_the_output_are_fetched(api: StandIn) -> None:
    """They expire there within the hour; here a result is kept for a day. Text stays text."""
    api.script["GET /v1/files/out.png"] = [answers_png]
    output = {
        "image": f"{api.url}/v1/files/out.png",
        "images": [f"{api.url}/v1/files/out.png"],
        "link": "https://example.com/cat.png",
        "n": 3,
    }
    api.script[CREATE] = [done(output)]
    outcome = await run(api)
    uri = f"data:image/png;base64,{base64.b64encode(b'PNG').decode()}"
    assert outcome.output == {
        "image": uri,
        "images": [uri],
        "link": "https://example.com/cat.png",
        "n": 3,
    }


async def answers_png(_: Any) -> Any:
    """A picture."""
    return web.Response(body=b"PNG", content_type="image/png")


async def test_the_token_is_not_shown_to_the_delivering_host(
    api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs are delivered by another host than the API's."""
    async with stand_in() as delivery:
        delivery.script["GET /out.png"] = [answers_png]
        monkeypatch.setattr(ReplicateBackend, "_is_ours", lambda _, url: True)
        api.script[CREATE] = [done(f"{delivery.url}/out.png")]
        options = RemoteOptions(Kind.REPLICATE, (api.url,), "me/m", TOKEN, allow_private=True)
        outcome = await run_on(made_of(options))
        assert outcome.output.startswith("data:image/png")
        assert "Authorization" not in delivery.seen[0].headers


async def test_an_output_leads_to_no_private_address(
    api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the back-end's own origin files are taken wherever that is; of others as for a caller's
    URL, though their name may be one that is trusted."""
    async with stand_in() as delivery:
        delivery.script["GET /out.png"] = [answers_png]
        monkeypatch.setattr(ReplicateBackend, "_is_ours", lambda _, url: True)
        for host in ("127.0.0.1", "１２７.０.０.１"):
            url = delivery.url.replace("127.0.0.1", host)
            api.script[CREATE] = [done(f"{url}/out.png")]
            assert code(await run(api)) == "backend_failed"
        assert delivery.seen == []


def test_whose_urls_are_fetched() -> None:
    """Replicate's delivery and the API's own, over TLS; nothing that only looks alike."""
    backend = backend_of("https://api.replicate.com")
    yes = ["https://replicate.delivery/x.png", "https://a.b.replicate.delivery/x"]
    no = [
        "http://replicate.delivery/x",
        "https://replicate.delivery.evil.com/x",
        "https://evilreplicate.delivery/x",
        "https://169.254.169.254/",
        "https://api.replicate.com.evil.com/v1/files/x",
    ]
    assert all(backend._is_ours(url) for url in [*yes, "https://api.replicate.com/v1/files/x"])
    assert not any(backend._is_ours(url) for url in no)


async def test_what_comes_compressed(api: StandIn) -> None:
    """Answers and files are read as they were before; what cannot be is no success."""

    async def packed(request: web.Request) -> web.StreamResponse:
        is_file = request.path.endswith(".png")
        body = gzip.compress(b"PNG" if is_file else orjson.dumps(done(url)))
        kind = "image/png" if is_file else "application/json"
        return web.Response(body=body, content_type=kind, headers={"Content-Encoding": "gzip"})

    async def unknown(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"PNG", headers={"Content-Encoding": "br"})

    url = f"{api.url}/v1/files/out.png"
    api.script[CREATE] = [packed]
    api.script["GET /v1/files/out.png"] = [packed]
    uri = f"data:image/png;base64,{base64.b64encode(b'PNG').decode()}"
    assert (await run(api)).output == uri
    api.script["GET /v1/files/out.png"] = [unknown]
    assert code(await run(api)) == "backend_failed"


async def test_an_output_that_cannot_be_had(api: StandIn) -> None:
    """Is no success."""
    api.script[CREATE] = [done(f"{api.url}/v1/files/gone.png")]
    assert code(await run(api)) == "backend_failed"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (401, "model_unavailable"),
        (402, "model_unavailable"),
        (404, "model_unavailable"),
        (422, "invalid_input"),
        (429, "model_unavailable"),
        (500, "backend_failed"),
        (b"<html>", "backend_failed"),
        (b'{"status": "succeeded"}', "backend_failed"),
        ({"id": "theirs", "status": "failed", "error": "boom"}, "prediction_failed"),
        ({"id": "theirs", "status": "failed", "error": "InvalidInput: x"}, "invalid_input"),
        ({"id": "theirs", "status": "canceled"}, "canceled"),
        ({"id": "theirs", "status": "aborted"}, "canceled"),
        (hang_up, "backend_failed"),
    ],
)
async def test_no_answer_raises(api: StandIn, step: Step, expected: str) -> None:
    """Whatever comes is an outcome with a code. Nothing that may have begun is sent again."""
    api.script[CREATE] = [step]
    assert code(await run(api)) == expected
    assert len(api.of("POST", "/v1/predictions")) == (3 if step == 429 else 1)


async def test_retry_after_is_kept(api: StandIn, tmp_path: Path) -> None:
    """Of a refusal, and of an upload's; a short one is waited for in the caller's name."""
    api.script[CREATE] = [answers(429, {"detail": "throttled"}, Retry_After="60")]
    outcome = await run(api)
    assert code(outcome) == "model_unavailable"
    assert outcome.failure is not None
    assert outcome.failure.retry_after_s == 60
    large = tmp_path / "l.wav"
    large.write_bytes(b"l" * (INLINE_BYTES + 1))
    urls = {"urls": {"get": f"{api.url}/v1/files/f1"}}
    api.script["POST /v1/files"] = [answers(429, None, Retry_After="0.01"), answers(201, urls)]
    api.script[CREATE] = [done()]
    job = Job("ours", {}, (FileRef("audio", str(large), "l.wav"),))
    assert (await run(api, job)).output == "text"


async def test_it_is_cancelled_there(api: StandIn) -> None:
    """When it takes longer than it may, or a poll does not come through any more."""
    api.script[CREATE] = [RUNNING]
    api.script[CANCEL] = [RUNNING]
    api.script[POLL] = [RUNNING]
    assert code(await run(api, timeout_s=0.3)) == "deadline_exceeded"
    assert len(api.of("POST", "/v1/predictions/theirs/cancel")) == 1
    api.script[POLL] = [hang_up]
    assert code(await run(api)) == "backend_failed"
    assert len(api.of("POST", "/v1/predictions/theirs/cancel")) == 2
    api.script[CREATE] = [never]
    assert code(await run(api, timeout_s=0.3)) == "deadline_exceeded"


async def test_is_it_there(api: StandIn) -> None:
    """Its own words for why it is not, without a prediction that would cost something."""
    for step, told in ((401, "key"), (404, "no such model"), (hang_up, "cannot be reached")):
        api.script["GET /v1/models/me/m"] = [step]
        with pytest.raises(StartError, match=told):
            await run(api)
    assert not api.of("POST", "/v1/predictions")


async def test_what_it_takes(api: StandIn) -> None:
    """The schema of the latest version, of a named one, of a deployment's release."""
    release = {"model": "me/m", "version": "v9"}
    api.script["GET /v1/deployments/me/d"] = [{"current_release": release}]
    api.script["GET /v1/models/me/m/versions/v9"] = [{"id": "v9", "openapi_schema": {"o": 9}}]
    expected = {"me/m": {"o": 1}, "me/m:v9": {"o": 9}, "deployment:me/d": {"o": 9}}
    for model, schema in expected.items():
        backend = backend_of(api.url, model)
        assert await backend.schema() == schema
        await backend.close()
    api.script["GET /v1/models/me/m"] = [{"latest_version": None}]
    backend = backend_of(api.url)
    with pytest.raises(StartError, match="no schema of its inputs"):
        await backend.schema()
    await backend.close()
