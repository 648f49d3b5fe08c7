"""Back-ends that are real coglet servers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.models.process_interface import NotStartedError, StartError
from router.prediction import FileRef, Job, Status
from router.remote.cog import CogBackend
from tests.packaging.isolated import ROOT, SCHEMA_SCRIPT, UNCOPIED, Image, Server, serving
from tests.router.remote.cog_backends import backend_of, code, ignore

pytestmark = pytest.mark.slow


# ---- a real coglet ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coglet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The echo package under Cog's own server, as in a container of it."""
    folder = tmp_path_factory.mktemp("coglet") / "echo"
    source = ROOT / "tests" / "packages" / "echo"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*UNCOPIED))
    python = Path(sys.executable)
    made = f"{python} {SCHEMA_SCRIPT} run.py:Runner | tail -n 1"
    pick = "import json,sys; print(json.dumps(json.load(sys.stdin)['schema']))"
    write = f'mkdir .cog && {made} | {python} -c "{pick}" > .cog/openapi_schema.json'
    subprocess.run(["sh", "-c", write], cwd=folder, check=True)
    env = {"PATH": f"{python.parent}:{os.environ['PATH']}", "TMPDIR": str(folder.parent)}
    with serving(Image(folder, python.parent.parent, env), "run.py:Runner", {}) as server:
        yield server


@pytest.fixture
async def to_coglet(coglet: Server) -> AsyncIterator[CogBackend]:
    """A back-end on it."""
    backend = backend_of(str(coglet.http.base_url))
    yield backend
    await backend.close()


async def test_a_coglet_predicts(to_coglet: CogBackend, tmp_path: Path) -> None:
    """The health, the schema, inputs and a file of the spool, which keeps its ending."""
    await to_coglet.probe()
    properties = (await to_coglet.schema())["components"]["schemas"]["Input"]["properties"]
    assert "number" in properties
    path = tmp_path / "0123.png"
    path.write_bytes(b"bytes" * 100_000)
    job = Job("a-1", {"text": "hi"}, (FileRef("file", str(path), "photo.png"),))
    outcome = await to_coglet.predict(job, ignore)
    assert outcome.status is Status.SUCCEEDED
    assert outcome.output["text"] == "hi"
    assert outcome.output["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert outcome.output["file_suffix"] == ".png"
    assert outcome.predict_time_s is not None


async def test_what_the_model_says_is_the_same_as_from_a_local_one(to_coglet: CogBackend) -> None:
    """Its objection is 422, its exception 500; neither shows a path."""
    cases = {"invalid": "invalid_input", "raise": "prediction_failed"}
    for mode, expected in cases.items():
        outcome = await to_coglet.predict(Job(f"m-{mode}", {"mode": mode}), ignore)
        assert code(outcome) == expected
        assert outcome.failure is not None
        assert "/" not in outcome.failure.message
    wrong = await to_coglet.predict(Job("m-3", {"number": 7}), ignore)
    assert wrong.failure is not None
    assert (wrong.failure.code, wrong.failure.details is not None) == ("invalid_input", True)


async def test_more_than_it_takes_at_once_wait(to_coglet: CogBackend) -> None:
    """coglet has one slot and no queue: ten at once all get their own answer."""
    jobs = [Job(f"c-{n}", {"text": str(n), "delay_s": 0.05}) for n in range(10)]
    outcomes = await asyncio.gather(*(to_coglet.predict(job, ignore) for job in jobs))
    assert [o.output["text"] for o in outcomes] == [str(n) for n in range(10)]


async def test_a_cancel_reaches_it(to_coglet: CogBackend) -> None:
    """And its own word for it is the outcome."""
    task = asyncio.create_task(to_coglet.predict(Job("long", {"delay_s": 300}), ignore))
    deadline = time.monotonic() + 60
    while not task.done():
        await to_coglet.cancel("long")
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await task).status is Status.CANCELED


async def test_a_time_limit_cancels_it(coglet: Server, to_coglet: CogBackend) -> None:
    """504, and the slot there is free again."""
    hasty = backend_of(str(coglet.http.base_url), timeout_s=1.0)
    outcome = await hasty.predict(Job("slow", {"delay_s": 300}), ignore)
    await hasty.close()
    assert code(outcome) == "deadline_exceeded"
    after = await to_coglet.predict(Job("after", {"text": "free"}), ignore)
    assert after.output["text"] == "free"


async def test_a_worker_that_died(coglet: Server, to_coglet: CogBackend) -> None:
    """The one it died on is 502. The server answers 409 from then on: nothing is begun on
    it. Last of the module, since this server is of no more use."""
    died = await to_coglet.predict(Job("d-1", {"mode": "crash"}), ignore)
    assert code(died) == "worker_died"
    with pytest.raises(NotStartedError, match="UNHEALTHY"):
        await to_coglet.predict(Job("d-2", {}), ignore)
    with pytest.raises(StartError, match="UNHEALTHY"):
        await to_coglet.probe()
