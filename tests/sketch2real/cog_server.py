"""Runs the package under the real coglet server, as its image would, and talks HTTP to it."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

SCHEMA_SCRIPT = """
import json, pathlib, sys
sys.path.insert(0, ".")
from cog import _inspector
info = _inspector.create_predictor("run", "Runner")
properties, required, choices = {}, [], {}
for name, field in info.inputs.items():
    entry = {"x-order": field.order, "description": field.description, **field.type.json_type()}
    if field.choices:
        choices[name] = {"title": name, "type": "string", "enum": list(field.choices)}
        entry = {"x-order": field.order, "allOf": [{"$ref": f"#/components/schemas/{name}"}]}
    if field.default is not None:
        entry["default"] = field.default
    elif field.type.repetition.name.startswith("OPTIONAL"):
        entry["nullable"] = True
    else:
        required.append(name)
    for limit, key in (("ge", "minimum"), ("le", "maximum"), ("max_length", "maxLength")):
        if getattr(field, limit) is not None:
            entry[key] = getattr(field, limit)
    properties[name] = entry
inputs = {"title": "Input", "type": "object", "properties": properties, "required": required}
schemas = {"Input": inputs, "Output": info.output.json_type(), **choices}
pathlib.Path(".cog").mkdir(exist_ok=True)
pathlib.Path(".cog/openapi_schema.json").write_text(json.dumps({
    "openapi": "3.0.2", "info": {"title": "Cog", "version": "0"},
    "paths": {"/predictions": {"post": {"summary": "Predict"}}},
    "components": {"schemas": schemas},
}))
"""


class Server:
    """A coglet process with its own temp folder."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, temp: Path, log: Path) -> None:
        self.process = process
        self.temp = temp
        self._log = log
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> dict[str, Any]:
        return dict(httpx.get(self._url + path, timeout=60).json())

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON; coglet's 409 just after another prediction is tried again."""
        deadline = time.monotonic() + 60
        while True:
            answer = httpx.post(self._url + path, json=body, timeout=300)
            if answer.status_code != 409 or time.monotonic() > deadline:
                return answer.status_code, dict(answer.json())
            time.sleep(0.01)

    def said(self, words: str) -> int:
        """How often `words` stand in what the server has logged so far."""
        return self._log.read_text(encoding="utf-8", errors="replace").count(words)

    def predict(self, **inputs: Any) -> tuple[int, dict[str, Any]]:
        return self.post("/predictions", {"input": inputs})


@contextlib.contextmanager
def serve(package: Path, folder: Path, **environment: str) -> Iterator[Server]:
    """Copy the package alone to `folder`, run it there, wait until it is ready, stop it."""
    copy = folder / "package"
    ignored = shutil.ignore_patterns("__pycache__", ".cog", ".mypy_cache", ".ruff_cache")
    shutil.copytree(package, copy, ignore=ignored)
    temp = folder / "tmp"
    temp.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(port),
        "TMPDIR": str(temp),
        "COG_PREDICT_TYPE_STUB": "run.py:Runner",
        "COG_SETUP_TIMEOUT": "120",
        "COG_MAX_CONCURRENCY": "4",  # what @concurrent says; only an image reads it from there
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # as in cog.yaml
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    subprocess.run([sys.executable, "-c", SCHEMA_SCRIPT], cwd=copy, env=env, check=True)
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
        cwd=copy, env=env, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    server = Server(process, port, temp, folder / "server.log")
    try:
        _wait_until_ready(server, folder / "server.log")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def _wait_until_ready(server: Server, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            health = server.get("/health-check")
            if health["status"] == "READY":
                return
            assert health["status"] == "STARTING", (health, log.read_text()[-4000:])
        assert server.process.poll() is None, log.read_text()[-4000:]
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-4000:])


def data_uri(path: Path, kind: str = "image/png") -> str:
    """The file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
