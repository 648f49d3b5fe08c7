"""Serves files: an output to every client that has its URL, an upload to its owner."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import stat
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from router.errors import NotFound, RangeNotSatisfiable, Unauthorized
from router.http.auth import caller_of
from router.http.context import context_of
from router.http.headers import header
from router.http.middleware import INERT
from router.media_types import is_shown, sent_type
from router.prediction import OutputFile

if TYPE_CHECKING:  # it imports the client, which only a router with a result store needs
    from router.storage.result_store import ResultStore

OUTPUT_PATH = "/v1/outputs/{id}/{name}"
ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
HEADERS = {
    **{name.decode(): value.decode() for name, value in INERT},
    # Only the URL gives access to the file, never a cookie or an address, so a page of another
    # site may show it.
    "cross-origin-resource-policy": "cross-origin",
}


async def output(request: Request) -> Response:
    """GET a file of an output, whole or a range of it. Its URL needs no key.

    Raises Unauthorized when the URL's token is wrong, and NotFound when there is no such file.
    """
    prediction_id, name = request.path_params["id"], request.path_params["name"]
    predictions = context_of(request).predictions
    given = request.query_params.get("token", "").encode()
    if not hmac.compare_digest(given, predictions.outputs.token(prediction_id, name).encode()):
        raise Unauthorized("Cannot read the file: this is not an output's URL")
    file = await predictions.links.file(prediction_id, name)
    try:
        return await file_response(request, file.path, file.name, file.media_type)
    except NotFound:
        results = predictions.outputs.reader.results
        if results is None:
            raise
        return await _moved_response(request, file, results)


async def upload(request: Request) -> Response:
    """GET the content of an uploaded file, for its owner."""
    uploads = context_of(request).uploads
    stored = await uploads.get(request.path_params["id"], caller_of(request))
    return await file_response(request, stored.path, stored.name, stored.content_type)


async def file_response(request: Request, path: str, name: str, media_type: str) -> Response:
    """Return the file, or one range of it, with its type, its length and a name to save it under.

    Raises NotFound when the file is gone or is no regular file, and RangeNotSatisfiable when the
    range is outside it.
    """
    try:
        file = await asyncio.to_thread(_open, path)
    except FileNotFoundError:
        raise NotFound(f"Cannot find file '{name[:80]}': it is not kept any more") from None
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise NotFound(f"Cannot find file '{name[:80]}'")
    try:
        _check_range(request, found.st_size)
    except RangeNotSatisfiable:
        file.close()
        raise
    kind = sent_type(media_type)
    return OpenFileResponse(
        file,
        headers=HEADERS,
        media_type=kind,
        filename=name,
        stat_result=found,
        content_disposition_type="inline" if is_shown(kind) else "attachment",
    )


class OpenFileResponse(FileResponse):
    """Sends a file that is open already: its name may be deleted meanwhile."""

    def __init__(self, file: FileIO, **more: Any) -> None:
        super().__init__(f"/dev/fd/{file.fileno()}", **more)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and close it."""
        with self._file:
            await super().__call__(scope, receive, send)


def _open(path: str) -> FileIO:
    # Without O_NONBLOCK a pipe in place of the file would hold the thread.
    return FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


async def _moved_response(request: Request, file: OutputFile, results: ResultStore) -> Response:
    """Return a file that is in the result store: a redirect to its signed URL, or its content.

    A client that sends a key gets the content. Replicate's for Python sends its key with each URL
    and follows no redirect; a store must not get the key, and refuses a URL that comes with one.
    The box's own page asks for the content: it may load nothing from other hosts.
    """
    name = Path(file.path).name
    asks = request.query_params.get("through") == "router"
    if results.signs_urls and not asks and header(request.scope, b"authorization") is None:
        url = await results.url(name, "HEAD" if request.method == "HEAD" else "GET")
        return RedirectResponse(url, 307, {**HEADERS, "cache-control": "no-store"})
    _check_range(request, file.size_bytes)
    first, end = _range(request, file.size_bytes)
    kind = sent_type(file.media_type)
    headers = {
        **HEADERS,
        "accept-ranges": "bytes",
        "content-disposition": f"{'inline' if is_shown(kind) else 'attachment'}; "
        f'filename="{file.name}"',
        "content-length": str(end - first),
        "content-type": kind,
    }
    is_part = end - first < file.size_bytes
    if is_part:
        headers["content-range"] = f"bytes {first}-{end - 1}/{file.size_bytes}"
    status = 206 if is_part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = results.read(name, first, end)
    try:
        begin = await anext(pieces, b"")  # before the head is sent: the store may not answer
    except FileNotFoundError:
        raise NotFound(f"Cannot find file '{file.name[:80]}': it is not kept any more") from None
    return StreamingResponse(_rest(begin, pieces), status, headers)


async def _rest(begin: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begin
    async for piece in pieces:
        yield piece


def _range(request: Request, size_bytes: int) -> tuple[int, int]:
    """Return the first byte of the range, and the byte after its last. `_check_range` has checked
    it. An If-Range never matches: these answers have no ETag."""
    asked = header(request.scope, b"range")
    found = ONE_RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or header(request.scope, b"if-range") is not None:
        return 0, size_bytes
    first, last = found.groups()
    if not first:
        return max(size_bytes - int(last), 0), size_bytes
    return int(first), min(int(last) + 1, size_bytes) if last else size_bytes


def _check_range(request: Request, size_bytes: int) -> None:
    """Check the Range header before Starlette reads it.

    A header with one range stays. A header with several ranges, or one that cannot be read, is
    removed, as RFC 9110 allows. Raises RangeNotSatisfiable when the range is outside the file.
    """
    asked = header(request.scope, b"range")
    if asked is None:
        return
    found = ONE_RANGE.fullmatch(asked.strip())
    first, last = found.groups() if found else ("", "")
    if (not first and not last) or (first and last and int(first) > int(last)):
        headers = request.scope["headers"]
        request.scope["headers"] = [pair for pair in headers if pair[0] != b"range"]
    elif (first and int(first) >= size_bytes) or (not first and int(last) == 0) or not size_bytes:
        raise RangeNotSatisfiable(f"Cannot read that range: the file has {size_bytes} bytes")


def add_routes(app: Starlette) -> None:
    """Add the routes under which files are read."""
    app.add_route(OUTPUT_PATH, output, methods=["GET"])
    app.add_route("/v1/files/{id}/download", upload, methods=["GET"])
