"""A container of the Modal app: `.local()` runs its hooks and methods, its web app answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn

from router.clock import SystemClock
from router.prediction import FileRef, Job, Status
from router.remote.backend import Kind, RemoteOptions, make_backend, make_guards
from router.remote.process import RemoteProcess
from tests.packaging.isolated import ROOT, UNCOPIED
from tests.waiting import LIMIT_S, wait_until

DEPLOY = ROOT / "deploy"
# A container here has no volume mounted, which Modal tells at each call.
pytestmark = pytest.mark.filterwarnings("ignore:The Model:UserWarning")


@pytest.fixture(scope="module")
def echo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The echo package, with the schema that the image's build writes."""
    packages = tmp_path_factory.mktemp("packages")
    folder = packages / "echo"
    shutil.copytree(
        ROOT / "tests" / "packages" / "echo", folder, ignore=shutil.ignore_patterns(*UNCOPIED)
    )
    sys.path.insert(0, str(DEPLOY))
    command = importlib.import_module("cog_image").schema_command(
        str(ROOT / "router" / "models" / "runner_schema.py"), "run.py:Runner"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", command], cwd=folder, env={"PATH": path}, check=True)
    return folder


@pytest.fixture(scope="module")
def modal_app(echo_folder: Path) -> Iterator[ModuleType]:
    """deploy/modal_app.py, imported as `modal deploy` imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL", "echo")
        patch.setenv("PACKAGES_DIR", str(echo_folder.parent))
        yield importlib.import_module("modal_app")


@pytest.fixture(scope="module")
def container(modal_app: ModuleType) -> Iterator[Any]:
    """One container's object, loaded: both enter hooks have run."""
    model = modal_app.Model()
    answer = model.predict.local({"text": "warm"})
    assert answer["status"] == "succeeded"
    yield model
    model.server.stop()


@pytest.fixture
async def web(container: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the FastAPI app that Modal would serve."""
    transport = httpx.ASGITransport(container.web.local())
    async with httpx.AsyncClient(transport=transport, base_url="http://modal", timeout=60) as http:
        yield http


async def until_busy(http: httpx.AsyncClient) -> None:
    """Wait until a prediction runs there."""
    deadline = time.monotonic() + LIMIT_S
    while (await http.get("/health-check")).json()["status"] != "BUSY":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_local_predicts_in_cogs_shape(container: Any) -> None:
    """`.local()` runs the set-up and the method; the answer is Cog's."""
    answer = container.predict.local({"text": "hi", "number": 0.25})
    assert answer["status"] == "succeeded"
    assert answer["output"]["text"] == "hi"
    assert answer["metrics"]["predict_time"] >= 0
    with pytest.raises(ValueError, match="422"):
        container.predict.local({"number": 7})


async def test_the_app_answers_as_cog_does(web: httpx.AsyncClient) -> None:
    """Health, schema, a prediction with a file and an id of its own, Cog's own 422."""
    assert (await web.get("/health-check")).json()["status"] in ("READY", "BUSY")
    schema = (await web.get("/openapi.json")).json()
    assert "number" in schema["components"]["schemas"]["Input"]["properties"]
    uri = f"data:text/plain;base64,{base64.b64encode(b'hello').decode()}"
    answer = await web.post("/predictions", json={"id": "my-1", "input": {"file": uri}})
    assert (answer.status_code, answer.json()["id"]) == (200, "my-1")
    assert answer.json()["output"]["file_sha256"] == hashlib.sha256(b"hello").hexdigest()
    refused = await web.post("/predictions", json={"input": {"number": 2}})
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "input", "number"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b"[]", 422),
        (b'{"input": 3}', 422),
        (b'{"input": {"file": "file:///etc/passwd"}}', 422),
        (b'{"input": {"file": "/etc/passwd"}}', 422),
        (b'{"id": "../../x", "input": {}}', 422),
    ],
)
async def test_what_must_not_reach_coglet(web: httpx.AsyncClient, body: bytes, status: int) -> None:
    """Local files, ids that are paths, bodies that are none."""
    headers = {"content-type": "application/json"}
    answer = await web.post("/predictions", content=body, headers=headers)
    assert answer.status_code == status, answer.text


async def test_other_paths_are_closed(web: httpx.AsyncClient) -> None:
    """coglet would run the runner at /trainings and end itself at /shutdown."""
    for path in ("/trainings", "/shutdown", "/predictions/../../x/cancel"):
        assert (await web.post(path, json={"input": {}})).status_code == 404


async def test_one_after_the_other_meets_no_409(web: httpx.AsyncClient) -> None:
    """coglet frees its slot some milliseconds late; a hundred at once find out."""
    for i in range(100):
        answer = await web.post("/predictions", json={"input": {"text": str(i)}})
        assert answer.status_code == 200
        assert answer.json()["output"]["text"] == str(i)


async def test_a_cancel(web: httpx.AsyncClient) -> None:
    """By id, while it runs; an unknown one is 404."""
    body = {"id": "long", "input": {"delay_s": 60}}
    running = asyncio.create_task(web.post("/predictions", json=body))
    deadline = time.monotonic() + 60
    while (await web.post("/predictions/long/cancel")).status_code != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await running).json()["status"] == "canceled"
    assert (await web.post("/predictions/long/cancel")).status_code == 404


async def test_a_caller_that_hangs_up_cancels(container: Any, web: httpx.AsyncClient) -> None:
    """The next prediction need not wait a minute for nobody."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    body = json.dumps({"id": "left", "input": {"delay_s": 600}}).encode()
    messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predictions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    front = container.web.local()
    asked = asyncio.create_task(front(scope, messages.get, send))
    await until_busy(web)
    messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(asked, 60)
    answer = await web.post("/predictions", json={"input": {"text": "next"}})
    assert answer.json()["output"]["text"] == "next"


async def test_a_worker_that_died_is_replaced(web: httpx.AsyncClient) -> None:
    """The one it died on has failed; the next is answered by another process."""
    first = (await web.post("/predictions", json={"input": {}})).json()["output"]["pid"]
    died = (await web.post("/predictions", json={"input": {"mode": "crash"}})).json()
    assert died["status"] == "failed"
    answer = (await web.post("/predictions", json={"input": {}})).json()
    assert answer["status"] == "succeeded"
    assert answer["output"]["pid"] != first


@pytest.fixture
def served(container: Any) -> Iterator[str]:
    """The app on a port of loopback, as Modal's proxy would reach it."""
    config = uvicorn.Config(container.web.local(), host="127.0.0.1", port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


async def test_the_routers_back_end_uses_it(served: str, tmp_path: Path) -> None:
    """`backend = "modal"`, all but Modal itself: a file, an objection, and a cancel, which is
    a connection that is closed."""
    options = RemoteOptions(Kind.MODAL, (served,), key="wk-1:ws-1", timeout_s=120)
    process = RemoteProcess(make_backend(options), make_guards(options, SystemClock()))
    await process.start()
    path = tmp_path / "0.png"
    path.write_bytes(b"x" * 300_000)
    job = Job("m-1", {"text": "hi"}, (FileRef("file", str(path), "a.png"),))
    done = await process.predict(job, lambda _: None)
    assert (done.output["text"], done.output["file_bytes"]) == ("hi", 300_000)
    refused = await process.predict(Job("m-2", {"mode": "invalid"}), lambda _: None)
    assert refused.failure is not None
    assert refused.failure.code == "invalid_input"
    long = asyncio.create_task(process.predict(Job("m-3", {"delay_s": 600}), lambda _: None))
    async with httpx.AsyncClient(base_url=served) as http:
        await until_busy(http)
    await process.cancel("m-3")
    assert (await long).status is Status.CANCELED
    after = await process.predict(Job("m-4", {"text": "free"}), lambda _: None)
    assert after.output["text"] == "free"
    await process.stop(0.0)


def test_the_module_is_imported_again_in_the_container(echo_folder: Path, tmp_path: Path) -> None:
    """There it has its three siblings and the package, and nothing of this repository."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("modal_app.py", "modal_front.py", "cog_server.py", "cog_image.py"):
        shutil.copy(DEPLOY / name, root)
    script = (
        "import modal; modal.is_local = lambda: False; import modal_app;"
        "print(modal_app.PARTS.runner, modal_app.FOLDER)"
    )
    env = {"PATH": os.environ["PATH"], "MODEL": "echo", "SOURCE": str(echo_folder)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**env, "HOME": str(tmp_path), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["run.py:Runner", str(echo_folder)]
