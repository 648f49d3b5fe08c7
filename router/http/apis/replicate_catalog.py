"""The rest of Replicate's API, for a server with one account.

Replicate's clients have a method for each of these paths. For a kind that does not exist here
(collections, deployments, trainings, examples) a list is empty, and one item is answered with 404.
A request that would change the account is answered with 405, and the message says what to do
instead.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from router.errors import MalformedRequest, MethodNotAllowed, NotFound, RouterError
from router.http.apis.replicate_views import model_view
from router.http.context import Context, context_of
from router.http.errors import json_response, render_error
from router.http.json_body import read_body
from router.http.prediction_params import base_url

Handler = Callable[[Request], Awaitable[Response]]

MODEL = "/v1/models/{owner}/{name}"
DEPLOYMENT = "/v1/deployments/{owner}/{name}"
EMPTY_PAGE: Mapping[str, Any] = {"previous": None, "next": None, "results": []}
MAX_QUERY_BYTES = 4096
MAX_README_BYTES = 1 << 20
SEARCH_LIMIT = 20
MAX_SEARCH_LIMIT = 50


# ---- lists -------------------------------------------------------------------------------


async def hardware(request: Request) -> Response:
    """Return the one kind of hardware that this machine has."""
    name = context_of(request).hardware
    sku = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return json_response([{"name": name, "sku": sku}])


async def nothing(request: Request) -> Response:
    """Return an empty page."""
    return json_response(EMPTY_PAGE)


async def examples(request: Request) -> Response:
    """Return an empty page: no examples are kept. Raises UnknownModel for an unknown model."""
    context_of(request).package(request.path_params["name"])
    return json_response(EMPTY_PAGE)


async def readme(request: Request) -> Response:
    """Return the README.md of the model's folder as text. Raises NotFound when there is none."""
    package = context_of(request).package(request.path_params["name"])
    text = await asyncio.to_thread(_read_readme, package.folder / "README.md")
    if text is None:
        raise NotFound(f"Cannot find a README.md of '{package.name}'")
    return PlainTextResponse(text)


def _read_readme(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_README_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


# ---- search ------------------------------------------------------------------------------


async def search_models(request: Request) -> Response:
    """QUERY /v1/models: the body is the text to search for, plain or as a JSON string.

    Raises MalformedRequest when the text cannot be read.
    """
    pieces: list[bytes] = []
    await read_body(request, MAX_QUERY_BYTES, pieces.append)
    try:
        text = b"".join(pieces).decode()
    except UnicodeDecodeError:
        raise MalformedRequest("Cannot search: the query is not UTF-8") from None
    if text.startswith('"'):
        try:
            text = str(json.loads(text))
        except ValueError:
            raise MalformedRequest("Cannot search: the query is not JSON") from None
    context = context_of(request)
    found = _found(context, text, base_url(request))
    return json_response({**EMPTY_PAGE, "results": found})


async def search(request: Request) -> Response:
    """GET /v1/search?query=…: search models by name and description.

    Raises MalformedRequest when `query` is missing or `limit` is not a number.
    """
    text = request.query_params.get("query", "")
    if not text:
        raise MalformedRequest("Cannot search: 'query' is missing")
    limit = request.query_params.get("limit", str(SEARCH_LIMIT))
    if not re.fullmatch(r"[0-9]{1,3}", limit, re.ASCII):
        raise MalformedRequest(f"Cannot search: 'limit' must be 1 to {MAX_SEARCH_LIMIT}")
    found = _found(context_of(request), text, base_url(request))[: int(limit)]
    models = [{"model": model, "metadata": {"tags": []}} for model in found[:MAX_SEARCH_LIMIT]]
    return json_response({"query": text, "models": models, "collections": [], "pages": []})


def _found(context: Context, text: str, base: str) -> list[dict[str, Any]]:
    """Return the models that have each word in their name or description."""
    words = text.lower().split()
    views = [model_view(context, n, context.replicate_owner, base) for n in context.models]
    return [
        view
        for view in views
        if all(word in f"{view['name']} {view['description'] or ''}".lower() for word in words)
    ]


# ---- refused -----------------------------------------------------------------------------


def refused(error: RouterError, allow: str = "") -> Handler:
    """Return a handler that answers with this error. `allow` lists the methods of the path."""

    async def refuse(request: Request) -> Response:
        return render_error(request.scope, error, {"Allow": allow} if allow else None)

    return refuse


NO_TRAINING = NotFound("Cannot find a training: this server runs models and trains none")
NO_DEPLOYMENT = NotFound(
    "Cannot find a deployment: this server has none, use the model itself (owner/name)"
)
NO_COLLECTION = NotFound("Cannot find a collection: this server has none")
ADD = MethodNotAllowed(
    "Cannot create a model here: put its folder beside the others on the server, "
    "see docs/adding-a-model.md"
)
CHANGE = MethodNotAllowed("Cannot change a model here: change its folder on the server")
DEPLOY = MethodNotAllowed("Cannot create a deployment here: use the model itself (owner/name)")


def add_routes(app: Starlette) -> None:
    """Add these routes. They are seldom used, so they come after the routes of all three APIs.

    The OpenAPI document leaves out those that only refuse.
    """
    app.add_route("/v1/hardware", hardware, methods=["GET"])
    for path in ("/v1/collections", "/v1/deployments", "/v1/trainings"):
        app.add_route(path, nothing, methods=["GET"])
    app.add_route(f"{MODEL}/examples", examples, methods=["GET"])
    app.add_route(f"{MODEL}/readme", readme, methods=["GET"])
    app.add_route("/v1/models", search_models, methods=["QUERY"])
    app.add_route("/v1/search", search, methods=["GET"])
    for path, methods, handler in (
        ("/v1/collections/{slug}", ["GET"], refused(NO_COLLECTION)),
        ("/v1/deployments", ["POST"], refused(DEPLOY, "GET")),
        (DEPLOYMENT, ["GET", "PATCH", "DELETE"], refused(NO_DEPLOYMENT)),
        (f"{DEPLOYMENT}/predictions", ["POST"], refused(NO_DEPLOYMENT)),
        ("/v1/models", ["POST"], refused(ADD, "GET, QUERY")),
        (MODEL, ["PATCH", "DELETE"], refused(CHANGE, "GET")),
        (f"{MODEL}/versions/{{version}}", ["DELETE"], refused(CHANGE, "GET")),
        (f"{MODEL}/versions/{{version}}/trainings", ["POST"], refused(NO_TRAINING)),
        ("/v1/trainings/{id}", ["GET"], refused(NO_TRAINING)),
        ("/v1/trainings/{id}/cancel", ["POST"], refused(NO_TRAINING)),
    ):
        app.add_route(path, handler, methods=methods, include_in_schema=False)
