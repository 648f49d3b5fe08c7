"""The package under the server that runs in its image."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN, PACKAGE

READY_WITHIN_S = 300


def openapi_schema() -> dict[str, Any]:
    """What `cog build` would write for the inputs, as far as this test needs it."""
    from cog import _inspector

    info = _inspector.create_predictor("run", "Runner")
    properties: dict[str, Any] = {}
    required = []
    for name, field in info.inputs.items():
        entry = {"x-order": field.order, "title": name, **field.type.json_type()}
        nullable = field.type.repetition.name.startswith("OPTIONAL")
        if field.default is not None:
            entry["default"] = field.default
        elif not nullable:
            required.append(name)
        if nullable:
            entry["nullable"] = True
        limits = (("ge", "minimum"), ("le", "maximum"), ("max_length", "maxLength"))
        for ours, theirs in limits:
            if getattr(field, ours) is not None:
                entry[theirs] = getattr(field, ours)
        properties[name] = entry
    inputs = {"title": "Input", "type": "object", "properties": properties, "required": required}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0"},
        "paths": {"/predictions": {"post": {"summary": "Predict"}}},
        "components": {"schemas": {"Input": inputs, "Output": info.output.json_type()}},
    }


class Server:
    """A running coglet."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, temp: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.temp = temp

    def health(self) -> str:
        try:
            with urllib.request.urlopen(f"{self.url}/health-check", timeout=60) as answer:  # noqa: S310
                return str(json.load(answer)["status"])
        except OSError:
            return "UNREACHABLE"

    def predict(self, **inputs: Any) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/predictions",
            json.dumps({"input": inputs}).encode(),
            {"Content-Type": "application/json"},
        )
        for _ in range(1000):  # ten seconds: a slow machine is no failure
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
                    made: dict[str, Any] = json.load(answer)
                    return made
            except urllib.error.HTTPError as problem:
                if problem.code != 409:  # the slot of the last prediction is freed a moment later
                    raise
                time.sleep(0.01)
        raise AssertionError("coglet stayed busy")

    def wait_for_input(self, file: Path) -> None:
        """Wait until the worker has the whole file and `run` has begun.

        coglet 0.23.1 raises a cancel that comes earlier in whatever thread is being started. When
        that is the one that fetches the file, the worker waits for it forever.
        """
        size = file.stat().st_size
        deadline = time.monotonic() + 240
        while not any(f.is_file() and f.stat().st_size == size for f in self.temp.rglob("*")):
            assert time.monotonic() < deadline, f"{file.name} did not reach the worker"
            time.sleep(0.02)
        time.sleep(1)  # `run` begins right after; nothing outside shows it


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """coglet on a copy of the package alone, in a temp directory of its own."""
    home = tmp_path_factory.mktemp("coglet")
    package = home / "fluency"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("weights", "__pycache__", ".*"))
    (package / "weights").symlink_to(PACKAGE / "weights")
    (package / ".cog").mkdir()
    (package / ".cog" / "openapi_schema.json").write_text(json.dumps(openapi_schema()))
    (home / "tmp").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": "run.py:Runner",
        "COG_SETUP_TIMEOUT": str(READY_WITHIN_S),
        "TMPDIR": str(home / "tmp"),
        "WEIGHTS": "demo",
        "COG_MAX_CONCURRENCY": "3",
    }
    log = (home / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
        cwd=package,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        made = Server(process, port, home / "tmp")
        deadline = time.monotonic() + READY_WITHIN_S
        while (status := made.health()) != "READY":
            tail = (home / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"{status} after {READY_WITHIN_S} s: {tail}"
            assert status in ("UNREACHABLE", "STARTING"), f"{status}: {tail}"
            time.sleep(0.1)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        log.close()


def data_uri(content: bytes) -> str:
    return "data:audio/wav;base64," + base64.b64encode(content).decode()


def test_a_real_prediction(server: Server) -> None:
    """One file field is enough: transcript, rates and timelines come back as JSON."""
    recording = data_uri((GOLDEN / "austen-0880.wav").read_bytes())
    answer = server.predict(audio=recording)
    assert answer["status"] == "succeeded", answer
    output = answer["output"]
    assert output["transcript"] == "He was not an ill-disposed young man."
    assert 7 <= output["syllable_count"] <= 12  # 10 by hand
    assert output["words"][0]["text"] == "He"
    assert output["timeline"] is None
    drawn = server.predict(audio=recording, transcribe=False, timeline=True)["output"]
    assert drawn["timeline"].startswith("data:image/png;base64,")


def test_several_at_once(server: Server) -> None:
    """As on a GPU: the server takes three predictions at once, and each gets its own answer."""
    names = ("mary.wav", "bobby.wav", "austen-0880.wav")

    def predict(name: str) -> dict[str, Any]:
        return server.predict(audio=data_uri((GOLDEN / name).read_bytes()), transcribe=False)

    with ThreadPoolExecutor(3) as threads:
        together = [answer["output"] for answer in threads.map(predict, names)]
    assert together == [predict(name)["output"] for name in names]


def test_a_canceled_prediction_leaves_the_server_well(server: Server) -> None:
    """Canceled while it waits or runs: the worker lives, and the next prediction is answered."""
    recording = data_uri((GOLDEN / "two_cities.flac").read_bytes())
    started = urllib.request.Request(  # noqa: S310 - our own server
        f"{server.url}/predictions/canceled-one",
        json.dumps({"input": {"audio": recording, "language": "en"}}).encode(),
        {"Content-Type": "application/json", "Prefer": "respond-async"},
        method="PUT",
    )
    with urllib.request.urlopen(started, timeout=240) as answer:  # noqa: S310
        assert answer.status == 202
    server.wait_for_input(GOLDEN / "two_cities.flac")
    cancel = urllib.request.Request(  # noqa: S310
        f"{server.url}/predictions/canceled-one/cancel", method="POST"
    )
    with urllib.request.urlopen(cancel, timeout=240) as answer:  # noqa: S310
        assert answer.status == 200
    after = server.predict(audio=data_uri((GOLDEN / "mary.wav").read_bytes()), transcribe=False)
    assert after["status"] == "succeeded", after
    assert server.health() == "READY"


def test_the_apps_own_check(server: Server) -> None:
    """The header without samples succeeds and says that no speech was found."""
    answer = server.predict(
        audio="data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
    )
    assert answer["status"] == "succeeded", answer
    assert answer["output"]["speech_detected"] is False


def test_a_text_file_fails_as_invalid_input(server: Server) -> None:
    """The error carries the class name that becomes an HTTP 422, and no path."""
    answer = server.predict(audio=data_uri(b"not a sound"))
    assert answer["status"] == "failed"
    assert "InvalidInput: Cannot read the recording: 'audio' must be" in answer["error"]
    assert "/" not in answer["error"].replace("M4A/AAC", "").replace("WebM/Opus", "")


def test_limits_are_in_the_schema(server: Server) -> None:
    """A pause threshold of 0 never reaches the runner: 422."""
    with pytest.raises(urllib.error.HTTPError) as refusal:
        server.predict(audio=data_uri(b"x"), pause_threshold=0)
    assert refusal.value.code == 422
