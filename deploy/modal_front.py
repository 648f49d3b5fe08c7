"""In the container on Modal: the few paths of Cog's own server that may be seen.

What coglet must not see is refused (`cog_server.refusal`), and its 409 for some milliseconds after
each prediction is waited out. Everything else is passed through unchanged.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from cog_server import ID, CogServer, refusal
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

BODY_KEYS = ("id", "input", "context", "webhook", "webhook_events_filter")
BUSY_RETRY_S = 0.002
BUSY_LIMIT_S = 60.0
BROKEN_AFTER_S = 1.0


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
