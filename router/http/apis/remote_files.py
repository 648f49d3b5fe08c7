"""Files for and from a machine that runs predictions of this box: large inputs and outputs.

Each URL has a token (`router.predictions.remote_files`), and works only while its prediction has
not ended.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import NotFound
from router.http.apis.downloads import file_response
from router.http.context import context_of
from router.http.json_body import read_body
from router.media_types import ANY_TYPE
from router.prediction import Prediction
from router.predictions.remote_files import INPUT, MAX_BYTES, NAME, OUTPUTS, PATH


async def read(request: Request) -> Response:
    """GET an input file of a prediction. Raises Unauthorized and NotFound."""
    prediction_id, name = request.path_params["id"], request.path_params["name"]
    context_of(request).remote_files.check(INPUT, prediction_id, name, request.query_params)
    for file in _unended(request).files:
        if Path(file.path).name == name:
            return await file_response(request, file.path, name, ANY_TYPE)
    raise NotFound(f"Cannot find file '{name[:80]}'")


async def write(request: Request) -> Response:
    """PUT an output file of a prediction.

    Raises Unauthorized, NotFound, PayloadTooLarge and InsufficientStorage.
    """
    prediction_id, name = request.path_params["id"], request.path_params["name"]
    files = context_of(request).remote_files
    files.check(OUTPUTS, prediction_id, "", request.query_params)
    if not NAME.fullmatch(name):
        raise NotFound(f"Cannot store file '{name[:80]}': its name must be 32 hex digits")
    _unended(request)
    incoming = files.receive(prediction_id, name)
    try:
        await read_body(request, MAX_BYTES, incoming.write)
        _unended(request)  # it may have ended meanwhile
        incoming.keep()
    finally:
        incoming.close()
    return Response(status_code=204)


def _unended(request: Request) -> Prediction:
    """Return the prediction of the URL. Raises NotFound when it has ended."""
    in_flight = context_of(request).predictions.in_flight(request.path_params["id"])
    if in_flight is None or in_flight.prediction.status.is_terminal:
        raise NotFound("Cannot pass on the file: its prediction has ended")
    return in_flight.prediction


def add_routes(app: Starlette) -> None:
    """Add the route of both."""
    app.add_route(PATH, read, methods=["GET"])
    app.add_route(PATH, write, methods=["PUT"])
