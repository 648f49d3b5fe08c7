"""The native API: `POST /{model}` takes a multipart form and answers with the model's JSON.

The edge function calls this API. Every package has it under its name.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from router.errors import RouterError
from router.http.auth import caller_of
from router.http.context import context_of, wait_for_end
from router.http.errors import json_response, render_error
from router.http.multipart import read_form
from router.http.new_prediction import Inputs, new_prediction
from router.http.prediction_params import prefers_async
from router.http.prediction_views import prediction_view
from router.inputs.input_schema import InputSchema
from router.keys.key import Caller
from router.prediction import Prediction
from router.predictions.failure_details import error_of

ROOT = "/{model}"


async def predict(request: Request) -> Response:
    """Run one prediction. Answer 200 with its output, 202 when it is or becomes asynchronous."""
    context = context_of(request)
    package = context.package(request.path_params["model"])

    async def read_inputs(schema: InputSchema, caller: Caller) -> Inputs:
        form = await read_form(request, context.files, context.max_upload_bytes)
        return await context.request_inputs.from_form(schema, form.parts, caller)

    p = await new_prediction(request, package, read_inputs, durable=prefers_async(request))
    headers = {"X-Prediction-Id": p.id}
    try:
        in_flight = await context.predictions.create(p)
        if p.durable:
            return await accepted(request, p.id)
        await wait_for_end(request, context, in_flight)
        if not in_flight.done.done():
            return await accepted(request, p.id)
        if error := in_flight.dropped_with or error_of(in_flight.prediction):
            raise error
    except RouterError as error:
        return render_error(request.scope, error, headers)
    return json_response(in_flight.prediction.output, headers=headers)


async def accepted(request: Request, prediction_id: str) -> Response:
    """Answer 202 with the URL of the prediction, which is on disk and continues."""
    predictions = context_of(request).predictions
    p = await predictions.keep(prediction_id, caller_of(request))
    p = await predictions.links.with_data_uris(p)
    location = f"/predictions/{p.id}"
    return json_response(
        _view(request, p),
        202,
        {"X-Prediction-Id": p.id, "Location": location, "Retry-After": "1"},
    )


async def get_prediction(request: Request) -> Response:
    """Return the state of a prediction that was answered with 202."""
    predictions = context_of(request).predictions
    p = await predictions.get(request.path_params["prediction_id"], caller_of(request))
    return json_response(_view(request, await predictions.links.with_data_uris(p)))


async def cancel_prediction(request: Request) -> Response:
    """Cancel a prediction unless it has ended, and return its state."""
    predictions = context_of(request).predictions
    caller = caller_of(request)
    p = await predictions.get(request.path_params["prediction_id"], caller)
    predictions.cancel(p.id)
    p = await predictions.links.with_data_uris(await predictions.get(p.id, caller))
    return json_response(_view(request, p))


async def delete_prediction(request: Request) -> Response:
    """Delete a prediction that has ended, with its output files. Answer 204."""
    predictions = context_of(request).predictions
    p = await predictions.get(request.path_params["prediction_id"], caller_of(request))
    await predictions.links.delete(p)
    return Response(status_code=204)


def _view(request: Request, p: Prediction) -> dict[str, Any]:
    predictions, caller = context_of(request).predictions, caller_of(request)
    return prediction_view(p, predictions, tracebacks=caller.is_admin)


def add_routes(app: Starlette) -> None:
    """Add the routes of this API. The model's own comes last: it would match every other path."""
    app.add_route("/predictions/{prediction_id}", get_prediction, methods=["GET"])
    app.add_route("/predictions/{prediction_id}", delete_prediction, methods=["DELETE"])
    app.add_route("/predictions/{prediction_id}/cancel", cancel_prediction, methods=["POST"])
    app.add_route(ROOT, predict, methods=["POST"])
    # The same route once more, for known models only, before all others: it is used most.
    app.router.routes.insert(0, ModelRoute(ROOT, predict, methods=["POST"]))


class ModelRoute(Route):
    """Matches only a POST to a known model, by one look-up of its name."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """FULL with the name of the model, or NONE."""
        name = scope["path"][1:] if scope["type"] == "http" else ""
        if not name or "/" in name or scope["method"] != "POST":
            return Match.NONE, {}
        if name not in scope["app"].state.context.packages:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": {"model": name}}
