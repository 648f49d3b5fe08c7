"""In the container on Modal: Cog's own server, and before it the few paths that may be seen.

coglet 0.23.1 must not be exposed to the internet: it hands `file://` and plain paths to the runner,
joins prediction ids to paths unchecked, runs the runner at /trainings too, and answers 409
for some milliseconds after each prediction. Here these are closed, and everything else is
passed through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
FETCHABLE = ("http://", "https://", "data:")
BODY_KEYS = ("id", "input", "context", "webhook", "webhook_events_filter")
BUSY_RETRY_S = 0.002
BUSY_LIMIT_S = 60.0
BROKEN_AFTER_S = 1.0
# A clock that jumps when a snapshot is restored may make one health reading bad.
WAKE_LIMIT_S = 30.0


class SetupFailedError(RuntimeError):
    """The runner's set-up failed or took too long; the message has the end of its log."""


class CogServer:
    """One coglet on loopback. Owns its process group."""

    def __init__(self, folder: Path, runner: str, *, concurrency: int, setup_timeout_s: int):
        self.schema_path = folder / ".cog" / "openapi_schema.json"
        self._folder = folder
        self._runner = runner
        self._concurrency = concurrency
        self._setup_timeout_s = setup_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._reviving = threading.Lock()
        self.url = ""

    def start(self) -> None:
        """Spawn it and wait for READY. Raises SetupFailedError; then nothing is left of it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=self._folder,
            env={
                **os.environ,
                # coglet spawns its worker as bare `python`.
                "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
                "PORT": str(port),
                "COG_PREDICT_TYPE_STUB": self._runner,
                "COG_SETUP_TIMEOUT": str(self._setup_timeout_s),
                "COG_MAX_CONCURRENCY": str(self._concurrency),
            },
            start_new_session=True,
        )
        try:
            self._wait_ready(self._setup_timeout_s)
        except BaseException:
            self.stop()
            raise

    def ensure_ready(self) -> None:
        """After a snapshot was restored: wait for READY, or start again."""
        try:
            self._wait_ready(WAKE_LIMIT_S)
        except SetupFailedError:
            self.stop()
            self.start()

    def revive(self) -> None:
        """Start the server again if its worker has died; of several callers one does."""
        with self._reviving:
            if self.health().get("status") not in ("READY", "BUSY"):
                self.stop()
                self.start()

    def stop(self) -> None:
        """End the process group, gently for ten seconds."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def health(self) -> dict[str, Any]:
        """The answer of /health-check, {} when there is none."""
        try:
            with urllib.request.urlopen(f"{self.url}/health-check", timeout=15) as answer:  # noqa: S310
                return dict(json.load(answer))
        except (OSError, ValueError):
            return {}

    def _wait_ready(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            health = self.health()
            if health.get("status") in ("READY", "BUSY"):
                return
            failed = health.get("status") in ("SETUP_FAILED", "DEFUNCT")
            ended = self._process is None or self._process.poll() is not None
            if failed or ended or time.monotonic() > deadline:
                logs = str((health.get("setup") or {}).get("logs") or "")
                raise SetupFailedError(f"Set-up ended {health.get('status')}: {logs[-2000:]}")
            time.sleep(0.1)


async def ask(server: CogServer, body: Mapping[str, Any]) -> tuple[int, bytes]:
    """POST a prediction, again while the slot of the one before is not yet free.

    A server whose worker has died answers 409 from then on: it is started again.
    """
    url = f"{server.url}/predictions"
    began = time.monotonic()
    no_limit = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=no_limit) as session:
        while True:
            async with session.post(url, json=dict(body)) as answer:
                waited_s = time.monotonic() - began
                if answer.status != 409 or waited_s > BUSY_LIMIT_S:
                    return answer.status, await answer.read()
            if waited_s > BROKEN_AFTER_S:
                await asyncio.to_thread(server.revive)
                url = f"{server.url}/predictions"
            await asyncio.sleep(BUSY_RETRY_S)


def refusal(body: object, schema: Mapping[str, Any]) -> str:
    """Why this request must not reach coglet; "" when it may. What coglet checks itself is
    left to it."""
    if not isinstance(body, dict) or not isinstance(body.get("input", {}), dict):
        return "the body must be a JSON object with an object `input`"
    if body.get("id") is not None and not ID.fullmatch(str(body["id"])):
        return "`id` must be 1 to 128 letters, digits, '-' or '_'"
    properties = schema["components"]["schemas"]["Input"].get("properties", {})
    for name, value in body.get("input", {}).items():
        prop = properties.get(name, {})
        is_file = "uri" in (prop.get("format"), (prop.get("items") or {}).get("format"))
        for one in value if isinstance(value, list) else [value]:
            if is_file and isinstance(one, str) and not one.lower().startswith(FETCHABLE):
                return f"`{name}` must be an http(s) URL or a data: URI"
    return ""


def create_front(server: CogServer) -> FastAPI:
    """The application: /predictions, its cancel, /health-check and /openapi.json."""
    schema = json.loads(server.schema_path.read_bytes())
    front = FastAPI(title="Cog", openapi_url=None, docs_url=None, redoc_url=None)

    @front.get("/")
    @front.get("/health-check")
    async def health() -> JSONResponse:
        return JSONResponse(await asyncio.to_thread(server.health))

    @front.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(schema)

    @front.post("/predictions")
    async def predict(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except ValueError:
            return JSONResponse({"detail": "the body is not JSON"}, 400)
        if why := refusal(body, schema):
            detail = [{"loc": ["body"], "msg": why, "type": "value_error"}]
            return JSONResponse({"detail": detail}, 422)
        passed = {k: body[k] for k in BODY_KEYS if body.get(k) is not None}
        passed.setdefault("id", secrets.token_hex(16))
        watching = asyncio.create_task(_cancel_if_gone(server, request, passed["id"]))
        try:
            status, answer = await ask(server, passed)
        finally:
            watching.cancel()
        return Response(answer, status, media_type="application/json")

    @front.post("/predictions/{prediction_id}/cancel")
    async def cancel(prediction_id: str) -> JSONResponse:
        if not ID.fullmatch(prediction_id):
            return JSONResponse({}, 404)
        return JSONResponse({}, await _cancel(server, prediction_id))

    return front


async def _cancel(server: CogServer, prediction_id: str) -> int:
    url = f"{server.url}/predictions/{prediction_id}/cancel"
    async with aiohttp.ClientSession() as session, session.post(url) as answer:
        return answer.status


async def _cancel_if_gone(server: CogServer, request: Request, prediction_id: str) -> None:
    """A caller that hangs up cancels its prediction: GPU time is money here."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    await _cancel(server, prediction_id)
