"""The app's face: `POST /{model}` with a multipart form, answered with the model's JSON.

This is what the edge function calls; any package gets it by its name.
"""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import RouterError
from router.http.auth import caller_of
from router.http.context import context_of, wait_for_end
from router.http.errors import json_response, render_error
from router.http.multipart import read_form
from router.http.prediction_params import deadline_at, prefers_async, priority
from router.http.prediction_views import prediction_view
from router.prediction import Prediction, new_id
from router.predictions.failures import error_of


async def predict(request: Request) -> Response:
    """Run one prediction: 200 with the output, 202 when it is or becomes asynchronous."""
    context, caller = context_of(request), caller_of(request)
    package = context.package(request.path_params["model"])
    spec = await context.spec(package)
    now = time.time()
    deadline, rank = deadline_at(request, now), priority(request)
    # Nothing here may keep the form: the prediction has its texts as values.
    inputs, files = await context.intake.from_form(
        spec, (await read_form(request, context.files, context.max_upload_bytes)).parts, caller
    )
    p = Prediction(
        id=new_id(),
        model=package.name,
        inputs=inputs,
        secrets=inputs.secrets,
        files=files,
        created_at=now,
        deadline_at=deadline,
        owner=caller.owner,
        priority=rank,
        durable=prefers_async(request),
    )
    headers = {"X-Prediction-Id": p.id}
    try:
        live = await context.predictions.create(p)
        if p.durable:
            return await accepted(request, p.id)
        await wait_for_end(request, context, live)
        if not live.done.done():
            return await accepted(request, p.id)
        if error := live.dropped_with or error_of(live.prediction):
            raise error
    except RouterError as error:
        return render_error(request.scope, error, headers)
    return json_response(live.prediction.output, headers=headers)


async def accepted(request: Request, prediction_id: str) -> Response:
    """202: it is on disk and goes on; where to ask for it."""
    predictions = context_of(request).predictions
    p = await predictions.keep(prediction_id, caller_of(request))
    p = await predictions.links.whole(p)
    location = f"/predictions/{p.id}"
    return json_response(
        prediction_view(p, predictions),
        202,
        {"X-Prediction-Id": p.id, "Location": location, "Retry-After": "1"},
    )


async def get_prediction(request: Request) -> Response:
    """The state of a prediction that was answered with 202."""
    predictions = context_of(request).predictions
    p = await predictions.get(request.path_params["prediction_id"], caller_of(request))
    return json_response(prediction_view(await predictions.links.whole(p), predictions))


async def cancel_prediction(request: Request) -> Response:
    """Cancel it if it has not ended; its state either way."""
    predictions = context_of(request).predictions
    caller = caller_of(request)
    p = await predictions.get(request.path_params["prediction_id"], caller)
    predictions.cancel(p.id)
    p = await predictions.links.whole(await predictions.get(p.id, caller))
    return json_response(prediction_view(p, predictions))


def add_routes(app: Starlette) -> None:
    """The face's routes. The model's own comes last: it would match every other path."""
    app.add_route("/predictions/{prediction_id}", get_prediction, methods=["GET"])
    app.add_route("/predictions/{prediction_id}/cancel", cancel_prediction, methods=["POST"])
    app.add_route("/{model}", predict, methods=["POST"])
