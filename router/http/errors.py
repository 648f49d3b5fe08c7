"""Renders errors for every API and every layer, without stack traces and without file paths.

The URL's path selects the shape: under /v1 Replicate's problem document; under /models Cog's
`detail`, for an input that cannot be used; everywhere else
`{"error": {"code", "message", "details"?}}`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from router.errors import (
    InvalidInput,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    RouterError,
    UnknownModel,
)
from router.prediction import Failure

log = logging.getLogger(__name__)

REPLICATE_PATHS = "/v1/"
COG_PATHS = "/models/"
TWICE = "/v1/v1/"
HTTP_ERRORS: Mapping[int, type[RouterError]] = {404: NotFound, 405: MethodNotAllowed}


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response. orjson writes NaN and Infinity as null, so neither is ever sent."""
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers, media_type="application/json")


def render_error(
    scope: Scope, error: RouterError, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the error in the shape of the API that the path belongs to, with its status.

    Where it has one, its Retry-After is in whole seconds.
    """
    out = {**(headers or {}), **retry_after(error)}
    if error.status == 401:
        out["WWW-Authenticate"] = "Bearer"
    path = scope["path"]
    if path.startswith(REPLICATE_PATHS) or path == "/v1":
        body = _problem(error)
    elif path.startswith(COG_PATHS) and isinstance(error, InvalidInput):
        body = {"detail": _detail(error)}
    else:
        body = {"error": error_fields(error.code, error.message, error.details)}
    return json_response(body, error.status, out)


def retry_after(source: RouterError | Failure | None) -> dict[str, str]:
    """Return the Retry-After header in whole seconds, or no header when that is not known."""
    seconds = source.retry_after_s if source else None
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}


def error_fields(code: str, message: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `code`, `message` and, where there are any, `details`."""
    fields: dict[str, Any] = {"code": code, "message": message}
    if details:
        fields["details"] = details
    return fields


def _problem(error: RouterError) -> dict[str, Any]:
    """Return Replicate's problem document (RFC 9457), with our `code` for programs."""
    body: dict[str, Any] = {
        "title": error.code.replace("_", " ").capitalize(),
        "detail": error.message,
        "status": error.status,
        "code": error.code,
    }
    if problems := (error.details or {}).get("problems"):
        body["invalid_fields"] = [
            {"field": p.get("body") or f"input.{p.get('input')}", "description": p["message"]}
            for p in problems
        ]
    return body


def _detail(error: InvalidInput) -> list[dict[str, Any]]:
    """Return Cog's list of the inputs that are wrong."""
    problems = (error.details or {}).get("problems") or [{"message": error.message}]
    return [{"loc": _loc(p), "msg": p["message"], "type": "value_error"} for p in problems]


def _loc(problem: Mapping[str, str]) -> list[str]:
    if "body" in problem:
        return ["body", problem["body"]]
    return ["body", "input", *([problem["input"]] if "input" in problem else [])]


async def on_router_error(request: Request, error: Exception) -> Response:
    """Answer a RouterError that any API has raised."""
    assert isinstance(error, RouterError)  # noqa: S101 - registered for nothing else
    if isinstance(error, UnknownModel) and (advice := _base_url_advice(request)):
        error = UnknownModel(f"{error.message}. {advice}", details=error.details)
    return render_error(request.scope, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer Starlette's own 404 and 405 in the shape of the path's API."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    cls = HTTP_ERRORS.get(error.status_code, MalformedRequest)
    message = f"Cannot {request.method} this path: {error.detail.lower()}"
    if advice := _base_url_advice(request):
        message = f"{message}. {advice}"
    return render_error(request.scope, cls(message), error.headers)


def _base_url_advice(request: Request) -> str:
    """Return what to change when a Replicate client's base URL has /v1 twice or lacks it.

    Some clients add /v1 to their base URL and some do not. "" when the base URL is not to blame.
    """
    path = request.scope["path"]
    if path.startswith(TWICE):
        return "The base URL has /v1 twice: leave it out of the base URL, this client adds it"
    # A document of the native API, such as /models/NAME/openapi.json, is no model of an owner.
    if path.startswith(REPLICATE_PATHS) or path.endswith(".json"):
        return ""
    wanted = {**request.scope, "path": f"/v1{path}"}
    if any(route.matches(wanted)[0] is Match.FULL for route in request.app.routes):
        return f"Replicate's API has it at /v1{path}: let the client's base URL end with /v1"
    return ""


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Answer 500 for a bug. The log gets every detail, the client gets none."""
    log.error(
        "unexpected error",
        exc_info=error,
        extra={"path": request.url.path, "request_id": request.scope.get("callme_request_id")},
    )
    return render_error(request.scope, RouterError("The server failed; its log says why"))
