"""Errors as the app's face tells them: one JSON shape, no stack trace, no path."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from router.domain.errors import (
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    RouterError,
)

log = logging.getLogger(__name__)

HTTP_ERRORS: Mapping[int, type[RouterError]] = {404: NotFound, 405: MethodNotAllowed}


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON bytes. orjson writes NaN and Infinity as null, so neither ever leaves the box."""
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers, media_type="application/json")


def error_body(error: RouterError) -> dict[str, Any]:
    """`{"error": {"code", "message", "details"?}}`."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.details:
        told["details"] = error.details
    return {"error": told}


def error_response(error: RouterError, headers: Mapping[str, str] | None = None) -> Response:
    """The error with its status and, where it has one, its Retry-After in whole seconds."""
    out = dict(headers or {})
    if error.retry_after_s is not None:
        out["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status == 401:
        out["WWW-Authenticate"] = "Bearer"
    return json_response(error_body(error), error.status, out)


async def on_router_error(request: Request, error: Exception) -> Response:
    """A RouterError raised anywhere in a face."""
    assert isinstance(error, RouterError)  # noqa: S101 - registered for nothing else
    return error_response(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the one shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    cls = HTTP_ERRORS.get(error.status_code, MalformedRequest)
    told = cls(f"Cannot {request.method} this path: {error.detail.lower()}")
    return error_response(told, error.headers)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """A bug: logged with all it has, told with nothing."""
    log.error(
        "unexpected error",
        exc_info=error,
        extra={"path": request.url.path, "request_id": request.scope.get("callme_request_id")},
    )
    return error_response(RouterError("The server failed; its log says why"))
