"""Replicate's API: the part that its official clients use to run models.

Any owner is accepted and shown unchanged, because there is one model of each name here. A model
has one version, and one more for each package `name@version`. A request that names a version gets
that one; any other gets the one that is served, which may be the canary. Every prediction made here
is durable, so that its state can be read later. A client that disconnects while it waits does not
cancel it.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import ModelUnavailable, NotFound
from router.http.apis.replicate_pages import list_predictions
from router.http.apis.replicate_views import (
    model_view,
    replicate_view,
    version_view,
)
from router.http.auth import admin_only, caller_of
from router.http.context import Context, context_of
from router.http.errors import json_response, retry_after
from router.http.json_body import read_json
from router.http.new_prediction import new_prediction
from router.http.prediction_params import (
    base_url,
    preferred_wait_s,
    read_callback,
    wrong,
)
from router.models.catalog import Package
from router.prediction import Json, Status

WAIT_S = 60.0
REFERENCE = re.compile(r"(?P<owner>[^/:]{1,100})/(?P<name>[^/:]{1,100})(?::(?P<version>.{1,100}))?")
MODEL = "/v1/models/{owner}/{name}"


# ---- creating ----------------------------------------------------------------------------


async def create_by_model(request: Request) -> Response:
    """POST /v1/models/{owner}/{name}/predictions."""
    context = context_of(request)
    package = context.package(request.path_params["name"])
    body = await read_json(request, context.max_upload_bytes)
    return await _create(request, package, request.path_params["owner"], body, exact=False)


async def create(request: Request) -> Response:
    """POST /v1/predictions. The model is in the body's `version` (or `model`)."""
    context = context_of(request)
    body = await read_json(request, context.max_upload_bytes)
    key = "version" if body.get("version") is not None else "model"
    reference = body.get(key)
    if not isinstance(reference, str):
        raise wrong("version", "must be a version's id, owner/name or owner/name:version")
    package, owner, exact = await _resolve(context, reference, key)
    return await _create(request, package, owner, body, exact=exact)


async def _create(
    request: Request, package: Package, owner: str, body: dict[str, Json], *, exact: bool
) -> Response:
    context = context_of(request)
    wait_s = preferred_wait_s(request, WAIT_S)
    values = body.get("input")
    if not isinstance(values, dict):
        raise wrong("input", "must be an object")
    base = base_url(request)
    p = await new_prediction(
        request,
        package,
        lambda schema, caller: context.request_inputs.from_json(schema, values, caller),
        durable=True,
        callback=read_callback(body, context.webhooks),
        namespace=owner,
        base_url=base,
        exact=exact,
    )
    in_flight = await context.predictions.create(p)
    if wait_s is not None:
        await in_flight.wait(min(wait_s, context.sync_limit_s))
    view = await replicate_view(context, in_flight.prediction, base)
    if in_flight.prediction.status.is_terminal:
        return json_response(view, 201, retry_after(in_flight.prediction.failure))
    # The clients' `run` treats any other status in this response as the end.
    view["status"] = Status.STARTING
    return json_response(view, 201 if wait_s is None else 202)


async def _resolve(context: Context, reference: str, key: str) -> tuple[Package, str, bool]:
    """Return the package, the owner to show, and whether a version is named: for
    `owner/name[:version]` or a version's id. A version is its id, or NAME of `name@NAME`.

    Raises UnknownModel when there is no such model, InvalidInput when there is no such version.
    """
    if found := REFERENCE.fullmatch(reference):
        package = context.package(found["name"])
        await _describe(context, package)
        if (version := found["version"]) is None:
            return package, found["owner"], False
        for one in await _versions(context, package):
            if version in _names(context, one):
                return one, found["owner"], True
    else:
        for package in context.packages.values():
            await _describe(context, package)
            if reference == context.schemas.versions.get(package.name):
                return package, context.replicate_owner, True
    raise wrong(key, "there is no such version")


async def _versions(context: Context, package: Package) -> list[Package]:
    """The package, and those that are versions of it, described if that is possible."""
    named = f"{package.name}@"
    found = [package, *(p for name, p in context.packages.items() if name.startswith(named))]
    for one in found:
        await _describe(context, one)
    return found


def _names(context: Context, package: Package) -> tuple[str | None, str | None]:
    """The id of the version, and its name after the @."""
    return context.schemas.versions.get(package.name), package.name.partition("@")[2] or None


async def _describe(context: Context, package: Package) -> None:
    """Read the package's schema, if that is possible."""
    with contextlib.suppress(ModelUnavailable):
        await context.input_schema(package)


# ---- predictions -------------------------------------------------------------------------


async def get(request: Request) -> Response:
    """Return one prediction."""
    context = context_of(request)
    p = await context.predictions.get(request.path_params["id"], caller_of(request))
    return json_response(await replicate_view(context, p, base_url(request)))


async def cancel(request: Request) -> Response:
    """Cancel a prediction unless it has ended, and return its state."""
    predictions = context_of(request).predictions
    p = await predictions.get(request.path_params["id"], caller_of(request))
    predictions.cancel(p.id)
    return await get(request)


# ---- models ------------------------------------------------------------------------------


async def list_models(request: Request) -> Response:
    """Return every model, on one page."""
    context = context_of(request)
    base = base_url(request)
    results = [model_view(context, n, context.replicate_owner, base) for n in context.models]
    return json_response({"previous": None, "next": None, "results": results})


async def get_model(request: Request) -> Response:
    """Return one model with its version."""
    context, package = await _model(request)
    owner = request.path_params["owner"]
    return json_response(model_view(context, package.name, owner, base_url(request)))


async def list_versions(request: Request) -> Response:
    """Return every version, the one of the model's own name first."""
    context, package = await _model(request)
    found = [version_view(context, one.name) for one in await _versions(context, package)]
    results = [version for version in found if version]
    return json_response({"previous": None, "next": None, "results": results})


async def get_version(request: Request) -> Response:
    """Return one version. Raises NotFound when there is none of that id."""
    context, package = await _model(request)
    for one in await _versions(context, package):
        if request.path_params["version"] in _names(context, one):
            return json_response(version_view(context, one.name))
    raise NotFound(f"Cannot find that version of '{package.name}'")


async def _model(request: Request) -> tuple[Context, Package]:
    context = context_of(request)
    package = context.package(request.path_params["name"])
    await _describe(context, package)
    return context, package


# ---- the account -------------------------------------------------------------------------


async def account(request: Request) -> Response:
    """Return the account that owns this server."""
    owner = context_of(request).replicate_owner
    view: dict[str, Any] = {"type": "organization", "username": owner, "name": owner}
    return json_response({**view, "github_url": None, "avatar_url": None})


@admin_only
async def webhook_secret(request: Request) -> Response:
    """Return the secret that signs webhooks. It needs an admin: it signs every caller's."""
    return json_response({"key": context_of(request).webhook_secret})


def add_routes(app: Starlette) -> None:
    """Add the routes of this API, without those of files."""
    app.add_route("/v1/predictions", create, methods=["POST"])
    app.add_route("/v1/predictions", list_predictions, methods=["GET"])
    app.add_route("/v1/predictions/{id}", get, methods=["GET"])
    app.add_route("/v1/predictions/{id}/cancel", cancel, methods=["POST"])
    app.add_route("/v1/models", list_models, methods=["GET"])
    app.add_route(MODEL, get_model, methods=["GET"])
    app.add_route(f"{MODEL}/predictions", create_by_model, methods=["POST"])
    app.add_route(f"{MODEL}/versions", list_versions, methods=["GET"])
    app.add_route(f"{MODEL}/versions/{{version}}", get_version, methods=["GET"])
    app.add_route("/v1/account", account, methods=["GET"])
    app.add_route("/v1/webhooks/default/secret", webhook_secret, methods=["GET"])
