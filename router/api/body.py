"""Reading a request's body, never more than the limit, whatever Content-Length says."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from router.domain.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from router.domain.prediction import Json
from router.runtime.inputs import load_json


async def bounded_chunks(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body's chunks. Raises PayloadTooLarge as soon as it is known, MalformedRequest when
    the client stops in the middle."""
    too_large = PayloadTooLarge(f"Cannot read the body: it exceeds {max_bytes} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise too_large
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise MalformedRequest("Cannot read the body: it ends early") from error


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, max_bytes: int) -> dict[str, Json]:
    """A JSON object. Raises UnsupportedMediaType, PayloadTooLarge, MalformedRequest."""
    if media_type(request) != "application/json":
        raise UnsupportedMediaType("Cannot read the body: Content-Type must be application/json")
    body = b"".join([chunk async for chunk in bounded_chunks(request, max_bytes)])
    try:
        value = load_json(body)
    except ValueError as error:
        raise MalformedRequest(f"Cannot read the body: {error}") from error
    if not isinstance(value, dict):
        raise MalformedRequest("Cannot read the body: it must be a JSON object")
    return value
