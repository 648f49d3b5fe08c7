"""Cog's API: `/models/{model}` has the paths that a Cog server has at its root.

The API follows Cog's docs/http.md, and coglet where that document says nothing. It differs where
it can do better: predictions queue (429 and 503 instead of 409), GET returns a prediction, PUT
never runs an id again after it has ended, and a stopped model reads as READY, because the next
prediction starts it. There is no /trainings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import NotAcceptable, UnknownPrediction
from router.http.apis.cog_health import health_view
from router.http.apis.streams import cog_stream
from router.http.auth import caller_of
from router.http.context import Context, context_of, wait_for_end
from router.http.errors import json_response, render_error, retry_after
from router.http.headers import header
from router.http.json_body import read_json
from router.http.new_prediction import new_prediction
from router.http.prediction_params import (
    base_url,
    prefers_async,
    read_callback,
    wrong,
)
from router.http.prediction_views import public_inputs, timestamp
from router.http.sse import EVENT_STREAM, accepts
from router.inputs.data_uris import long_strings
from router.keys.key import Caller
from router.models.catalog import Package, does_stream
from router.prediction import Json, Prediction, Status, model_of, new_id

# The id becomes part of URLs, and coglet makes it part of a file path.
PREDICTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
ROOT = "/models/{model}"
# In the scope: whether the answer is a stream.
STREAMS = "callme_streams"
# The context is for credentials and similar short texts. Files are inputs.
MAX_CONTEXT_CHARS = 16 << 10


def cog_view(p: Prediction) -> dict[str, Any]:
    """Return the prediction as Cog shows it.

    Cog has no status `aborted`, so it is shown as `canceled`. Cog has no field for the kind of
    a failure; `error_code` is added for another router, which passes it on.
    """
    code = {"error_code": p.failure.code} if p.failure else {}
    return {
        **code,
        "id": p.id,
        "status": Status.CANCELED if p.status is Status.ABORTED else p.status,
        "input": public_inputs(p),
        "output": p.output,
        "error": p.failure.message if p.failure else None,
        "logs": p.logs,
        "metrics": p.metrics,
        "created_at": timestamp(p.created_at),
        "started_at": timestamp(p.started_at),
        "completed_at": timestamp(p.completed_at),
    }


# ---- creating ----------------------------------------------------------------------------


async def create(request: Request) -> Response:
    """POST: run a prediction. Answer 200 when it has ended, 202 when it is or becomes asynchronous.

    With an `id` from the client it is as idempotent as PUT, and its result is kept.
    """
    context, package, body = await _read(request)
    if body.get("id") is not None:
        return await _create_named(request, context, package, body, body["id"])
    p = await _prediction(request, context, package, body, prediction_id=new_id())
    in_flight = await context.predictions.create(p)
    if request.scope[STREAMS]:
        return cog_stream(request, in_flight, p, cog_view, cancel=True)
    if prefers_async(request):
        return _accepted(in_flight.prediction)
    await wait_for_end(request, context, in_flight)
    if not in_flight.done.done():
        kept = await context.predictions.keep(p.id, caller_of(request))
        return _accepted(await context.predictions.links.with_data_uris(kept))
    if in_flight.dropped_with is not None:
        return render_error(request.scope, in_flight.dropped_with)
    p = in_flight.prediction
    return json_response(cog_view(p), headers=retry_after(p.failure))


async def put(request: Request) -> Response:
    """PUT: as POST, but an id never runs twice, even if this connection is lost."""
    context, package, body = await _read(request)
    prediction_id = request.path_params["id"]
    if body.get("id", prediction_id) != prediction_id:
        raise wrong("id", "must match the id in the URL")
    return await _create_named(request, context, package, body, prediction_id)


async def _create_named(
    request: Request, context: Context, package: Package, body: dict[str, Json], wanted_id: Json
) -> Response:
    if not isinstance(wanted_id, str) or not PREDICTION_ID.fullmatch(wanted_id):
        raise wrong("id", "must be 1 to 64 letters, digits, '-' or '_'")
    inputs_digest = await _digest(context, body.get("input") or {}, read_context(body))
    digest = context.keyed_digest(inputs_digest)
    caller = caller_of(request)

    async def make() -> Prediction:
        return await _prediction(
            request, context, package, body, prediction_id=wanted_id, digest=digest
        )

    in_flight = await context.predictions.create_once(wanted_id, package.name, digest, caller, make)
    if request.scope[STREAMS]:
        p = await _with_data_uris(context, wanted_id, caller)
        return cog_stream(
            request, context.predictions.in_flight(wanted_id), p, cog_view, cancel=False
        )
    if in_flight is not None and not prefers_async(request):
        # A client that disconnects cancels nothing here: with the id it can ask again.
        await in_flight.wait(context.sync_limit_s)
    p = await _with_data_uris(context, wanted_id, caller)
    return json_response(cog_view(p)) if p.status.is_terminal else _accepted(p)


async def _with_data_uris(context: Context, prediction_id: str, caller: Caller) -> Prediction:
    """Return the prediction with the files of its output as data: URIs."""
    p = await context.predictions.get(prediction_id, caller)
    return await context.predictions.links.with_data_uris(p)


async def _read(request: Request) -> tuple[Context, Package, dict[str, Json]]:
    context = context_of(request)
    package = context.package(request.path_params["model"])
    request.scope[STREAMS] = await _streams(request, context, package)
    if header(request.scope, b"content-type") is None:
        return context, package, {}  # enough for a model without required inputs
    return context, package, await read_json(request, context.max_upload_bytes)


async def _streams(request: Request, context: Context, package: Package) -> bool:
    """Return whether to answer with Server-Sent Events.

    Raises NotAcceptable when the client accepts nothing else and the model does not stream.
    """
    if not accepts(request, EVENT_STREAM):
        return False
    await context.input_schema(package)
    if does_stream(context.schemas.openapi[package.name]):
        return True
    if accepts(request, "application/json") or accepts(request, "*/*"):
        return False
    raise NotAcceptable("Cannot stream: the model's run() is not decorated with @streaming")


async def _prediction(
    request: Request,
    context: Context,
    package: Package,
    body: dict[str, Json],
    *,
    prediction_id: str,
    digest: str = "",
) -> Prediction:
    """Return the prediction that the body describes, with its files in the spool."""
    values = body.get("input")
    if not isinstance(values, dict) and values is not None:
        raise wrong("input", "must be an object")
    runner_context = read_context(body)
    callback = read_callback(body, context.webhooks)
    return await new_prediction(
        request,
        package,
        lambda schema, caller: context.request_inputs.from_json(schema, values or {}, caller),
        durable=bool(digest or callback) or prefers_async(request),
        prediction_id=prediction_id,
        digest=digest,
        callback=callback,
        runner_context=runner_context,
        base_url=base_url(request) if callback else "",
    )


def read_context(body: Mapping[str, Json]) -> dict[str, str]:
    """Return what the runner reads as `current_scope().context`.

    Raises InvalidInput when it is not an object of texts, or when they have more than
    MAX_CONTEXT_CHARS characters in total, names included.
    """
    given = body.get("context")
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        raise wrong("context", "must be an object whose values are all text")
    if sum(len(k) + len(v) for k, v in given.items()) > MAX_CONTEXT_CHARS:
        raise wrong("context", f"must have at most {MAX_CONTEXT_CHARS} characters")
    return given


async def _digest(context: Context, inputs: Json, runner_context: Mapping[str, str]) -> str:
    """Return the hash by which a repeated PUT is compared.

    It covers the context and the inputs as sent. The order of names does not matter.
    """
    turns = context.request_inputs.turns
    hashes = {id(s): await s.sha256(turns) for s in long_strings(inputs)}
    canonical = msgspec.json.encode(inputs, enc_hook=lambda s: hashes[id(s)], order="sorted")
    if runner_context:
        canonical += msgspec.json.encode(runner_context, order="sorted")
    return hashlib.sha256(canonical).hexdigest()


def _accepted(p: Prediction) -> Response:
    location = f"/models/{p.model}/predictions/{p.id}"
    return json_response(cog_view(p), 202, {"Location": location})


# ---- one prediction ----------------------------------------------------------------------


async def get(request: Request) -> Response:
    """Return a prediction that was answered with 202 or has an id from the client."""
    links = context_of(request).predictions.links
    return json_response(cog_view(await links.with_data_uris(await _find(request))))


async def cancel(request: Request) -> Response:
    """Answer 200 and an empty object when the prediction exists, even if it has ended."""
    p = await _find(request)
    context_of(request).predictions.cancel(p.id)
    return json_response({})


async def _find(request: Request) -> Prediction:
    context = context_of(request)
    package = context.package(request.path_params["model"])
    p = await context.predictions.get(request.path_params["id"], caller_of(request))
    if model_of(p.model) != model_of(package.name):
        raise UnknownPrediction(f"Cannot find prediction '{p.id}' of '{package.name}'")
    return p


# ---- the model ---------------------------------------------------------------------------


async def index(request: Request) -> Response:
    """Return Cog's discovery document with the paths of this API."""
    name = context_of(request).package(request.path_params["model"]).name
    predictions = f"/models/{name}/predictions"
    return json_response(
        {
            "docs_url": "/docs",
            "openapi_url": f"/models/{name}/openapi.json",
            "healthcheck_url": f"/models/{name}/health-check",
            "predictions_url": predictions,
            "predictions_idempotent_url": f"{predictions}/{{prediction_id}}",
            "predictions_cancel_url": f"{predictions}/{{prediction_id}}/cancel",
        }
    )


async def health_check(request: Request) -> Response:
    """Always answer 200; the state is in `status`."""
    context = context_of(request)
    package = context.package(request.path_params["model"])
    model = context.loop.snapshot().models[package.name]
    log = context.loop.set_up_log(package.name)
    return json_response(health_view(model, log, package, context.wall_time))


async def openapi(request: Request) -> Response:
    """Return the model's own schema, with paths relative to this API. 503 without a schema."""
    context = context_of(request)
    package = context.package(request.path_params["model"])
    await context.input_schema(package)
    schema = context.schemas.openapi[package.name]
    paths = {k: v for k, v in schema.get("paths", {}).items() if "training" not in k}
    servers = [{"url": f"/models/{package.name}"}]
    return json_response({**schema, "servers": servers, "paths": paths})


def add_routes(app: Starlette) -> None:
    """Add the routes of this API."""
    app.add_route(f"{ROOT}/predictions", create, methods=["POST"])
    app.add_route(ROOT, index, methods=["GET"])
    app.add_route(f"{ROOT}/health-check", health_check, methods=["GET"])
    app.add_route(f"{ROOT}/openapi.json", openapi, methods=["GET"])
    app.add_route(f"{ROOT}/predictions/{{id}}", put, methods=["PUT"])
    app.add_route(f"{ROOT}/predictions/{{id}}", get, methods=["GET"])
    app.add_route(f"{ROOT}/predictions/{{id}}/cancel", cancel, methods=["POST"])
