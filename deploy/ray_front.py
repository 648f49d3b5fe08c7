"""What callers see of one package on a Ray cluster: Cog's HTTP API, by any number of fronts.

The front is where control requests end (health, schema, cancel): a replica whose places are taken
would let them wait, and one that has scaled to zero would be started for them.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from cog_server import ID, refusal
from ray import serve
from ray.exceptions import RayError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)
from ray_replica import EVENTS, JSON, NOT_BEGUN
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

log = logging.getLogger("ray.serve")

CANCELED = (RequestCancelledError, TaskCancelledError)
BODY_KEYS = ("id", "input", "context")
# How often another replica is asked for one that takes the prediction, and after how long.
OTHER_REPLICAS, OTHER_AFTER_S = 20, 0.05
# Ended predictions of which a front can still be asked: a caller may have lost the connection.
KEPT, KEPT_BYTES = 64, 4 << 20
STATUS_LIMIT_S = 2.0
ASK_LIMIT_S = 5.0


class Front:
    """Serve's ingress of a package.

    `model`: the handle of its replicas, which run `concurrency` predictions each. `tries_again`:
    how often a prediction is run again whose replica was lost while it ran. `key_file`: of the key
    that callers must send, "" for none. `files_url`: the router's address, with which replicas may
    exchange files; "" for none.
    """

    def __init__(
        self,
        model: Any,
        schema: Mapping[str, Any],
        *,
        concurrency: int,
        tries_again: int,
        key_file: str,
        files_url: str,
    ) -> None:
        self._model = model
        self._concurrency = concurrency
        self._schema = schema
        self._tries_again = tries_again
        self._key = Path(key_file).read_text().strip() if key_file else ""
        self._files_url = files_url.rstrip("/")
        self._running: dict[str, Any] = {}
        self._ended: OrderedDict[str, bytes] = OrderedDict()

    async def __call__(self, request: Request) -> Response:
        """One request to /health-check, /openapi.json, /load or below /predictions."""
        sent = request.headers.get("authorization", "").encode()
        if self._key and not hmac.compare_digest(sent, f"Bearer {self._key}".encode()):
            return JSONResponse({"detail": "no such key"}, 401)
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        match (request.method, *path.strip("/").split("/")):
            case ("GET", "health-check"):
                answer: Response = JSONResponse({"status": await self._status()})
            case ("GET", "openapi.json"):
                answer = JSONResponse(self._schema)
            case ("GET", "load"):
                counts = await self._broadcast("count")
                load = {"predictions": sum(counts), "concurrency": self._concurrency}
                answer = JSONResponse(load)
            case ("POST", "predictions"):
                answer = await self._take(request, "")
            case ("PUT", "predictions", prediction_id) if ID.fullmatch(prediction_id):
                answer = await self._take(request, prediction_id)
            case ("GET", "predictions", prediction_id) if ID.fullmatch(prediction_id):
                answer = await self._ask_all(prediction_id, cancels=False)
            case ("POST", "predictions", prediction_id, "cancel") if ID.fullmatch(prediction_id):
                answer = await self._ask_all(prediction_id, cancels=True)
            case _:
                answer = JSONResponse({"detail": "no such path"}, 404)
        return answer

    async def _status(self) -> str:
        """READY unless Serve cannot start replicas. A controller that is gone does not count: the
        fronts work without it."""
        name = serve.get_replica_context().app_name
        try:
            async with asyncio.timeout(STATUS_LIMIT_S):
                status = await asyncio.to_thread(serve.status)
            failed = status.applications[name].deployments["model"].status
        except (TimeoutError, KeyError, RayError):
            return "READY"
        return "SETUP_FAILED" if failed in ("DEPLOY_FAILED", "UNHEALTHY") else "READY"

    async def _take(self, request: Request, prediction_id: str) -> Response:
        try:
            body = json.loads(await request.body())
        except ValueError:
            return JSONResponse({"detail": "the body is not JSON"}, 400)
        if why := refusal(body, self._schema):
            detail = [{"loc": ["body"], "msg": why, "type": "value_error"}]
            return JSONResponse({"detail": detail}, 422)
        files_url = str(body.get("files_url") or "")
        if files_url and not (self._files_url and files_url.startswith(f"{self._files_url}/")):
            why = "serve.yaml does not have remote.files_url of the router as files_url"
            return JSONResponse({"detail": why}, 501)
        passed = {k: body[k] for k in BODY_KEYS if body.get(k) is not None}
        passed["id"] = prediction_id or passed.get("id") or secrets.token_hex(16)
        streams = EVENTS in request.headers.get("accept", "")
        return await self._predict(passed, files_url, streams=streams)

    async def _predict(self, body: Mapping[str, Any], files_url: str, *, streams: bool) -> Response:
        """Send it to a replica, and to another one when that does not take it or is lost."""
        prediction_id, lost = body["id"], 0
        if (known := self._known(prediction_id)) is not None:
            return known
        for _ in range(OTHER_REPLICAS):
            try:
                if (answer := await self._try(body, files_url, streams=streams)) is not None:
                    return answer
                await asyncio.sleep(OTHER_AFTER_S)
            except BackPressureError:
                return JSONResponse({"detail": "too many wait"}, 503, {"Retry-After": "1"})
            except DeploymentUnavailableError as error:
                return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "10"})
            except RayError as error:
                lost += 1
                what = f"{type(error).__name__}, {lost} times"
                log.warning("prediction %s lost its replica: %s", prediction_id, what)
                if lost > self._tries_again:
                    return JSONResponse({"detail": f"its replica was lost: {what}"}, 502)
        return JSONResponse({"detail": "no replica takes it"}, 503, {"Retry-After": "1"})

    async def _try(
        self, body: Mapping[str, Any], files_url: str, *, streams: bool
    ) -> Response | None:
        """The answer of one replica; None when it has begun nothing. Raises what Ray raises when
        the replica is lost, or Serve has none."""
        prediction_id, sent = body["id"], json.dumps(body).encode()
        model = self._model.options(stream=streams)
        method = model.stream if streams else model.predict
        more = (files_url,) if files_url and not streams else ()
        answer = self._running[prediction_id] = method.remote(sent, prediction_id, *more)
        is_passed_on = False
        try:
            status, kind, *rest = await (anext(answer) if streams else answer)
            if status == NOT_BEGUN:
                return None
            if kind.startswith(EVENTS):
                is_passed_on = True
                events = self._events(prediction_id, answer)
                return StreamingResponse(events, status, media_type=kind)
            content = rest[0] if rest else b"".join([piece async for piece in answer])
            return self._end(prediction_id, status, kind, content)
        except CANCELED:
            canceled = {"id": prediction_id, "status": "canceled", "output": None, "logs": ""}
            return self._end(prediction_id, 200, JSON, json.dumps(canceled).encode())
        finally:
            if not is_passed_on:
                self._running.pop(prediction_id, None)

    def _known(self, prediction_id: str) -> Response | None:
        """The answer for an id that this front knows: it does not run twice here. None for one that
        it does not know."""
        if prediction_id in self._running:
            return JSONResponse({"detail": "it runs already"}, 409)
        ended = self._ended.get(prediction_id)
        return None if ended is None else Response(ended, media_type=JSON)

    def _end(self, prediction_id: str, status: int, kind: str, content: bytes) -> Response:
        if status == 200 and len(content) <= KEPT_BYTES:
            self._ended[prediction_id] = content
            while len(self._ended) > KEPT:
                self._ended.popitem(last=False)
        return Response(content, status, media_type=kind)

    async def _events(
        self, prediction_id: str, answer: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        try:
            async for piece in answer:
                yield piece
        except RayError as error:
            status = "canceled" if isinstance(error, CANCELED) else "failed"
            last = {"id": prediction_id, "status": status, "error": type(error).__name__}
            yield f"event: completed\ndata: {json.dumps(last)}\n\n".encode()
        finally:
            self._running.pop(prediction_id, None)

    # ---- a prediction by its id --------------------------------------------------------------

    async def _ask_all(self, prediction_id: str, *, cancels: bool) -> Response:
        """Ask every front: one of them may have it."""
        answers = await self._broadcast("ask", prediction_id, cancels)
        found = next((a for a in answers if a), b"")
        return Response(found or b"{}", 200 if found else 404, media_type=JSON)

    @staticmethod
    async def _broadcast(method: str, *args: Any) -> list[Any]:
        """What every front of this package returns, this one included."""
        context = serve.get_replica_context()
        fronts = serve.get_deployment_handle(context.deployment, context.app_name)
        asked = fronts.broadcast(method, *args)
        return list(await asked.results_async(timeout_s=ASK_LIMIT_S))

    async def count(self) -> int:
        """How many predictions this front has that run or wait for a replica."""
        return len(self._running)

    async def ask(self, prediction_id: str, cancels: bool) -> bytes:
        """What this front knows of the prediction, after a cancel if asked; empty for nothing."""
        if (answer := self._running.get(prediction_id)) is None:
            return b"" if cancels else self._ended.get(prediction_id, b"")
        if cancels:
            answer.cancel()
        return json.dumps({"id": prediction_id, "status": "processing"}).encode()
