"""Reading a request's body, never more than the limit, whatever Content-Length says."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from router.api.context import context_of
from router.api.headers import header
from router.api.json_body import JsonBody
from router.domain.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from router.domain.prediction import Json


async def read_body(request: Request, max_bytes: int, take: Callable[[bytes], object]) -> None:
    """Hand the body to `take`, piece by piece. Raises PayloadTooLarge as soon as it is known,
    MalformedRequest when the client stops in the middle, UnsupportedMediaType for a compressed
    body: 25 MB of it could become gigabytes, and no caller of ours compresses."""
    encoding = header(request.scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Cannot read the body: Content-Encoding must be identity")
    too_large = PayloadTooLarge(f"Cannot read the body: it exceeds {max_bytes} bytes")
    declared = header(request.scope, b"content-length") or ""
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    size = 0
    more = True
    # Not `request.stream()`: each of its pieces takes a turn of two generators.
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("Cannot read the body: it ends early")
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            size += len(piece)
            if size > max_bytes:
                raise too_large
            take(piece)


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, lower case."""
    return (header(request.scope, b"content-type") or "").partition(";")[0].strip().lower()


async def read_json(request: Request, max_bytes: int) -> dict[str, Json]:
    """A JSON object; in it a LongString for each long data: string. Raises UnsupportedMediaType,
    PayloadTooLarge, MalformedRequest."""
    if media_type(request) != "application/json":
        raise UnsupportedMediaType("Cannot read the body: Content-Type must be application/json")
    body = JsonBody()
    await read_body(request, max_bytes, body.take)
    try:
        if body.is_long:
            value = await context_of(request).intake.turns.take(body.load)
        else:
            value = body.load()
    except ValueError as error:
        raise MalformedRequest(f"Cannot read the body: {error}") from error
    if not isinstance(value, dict):
        raise MalformedRequest("Cannot read the body: it must be a JSON object")
    return value
