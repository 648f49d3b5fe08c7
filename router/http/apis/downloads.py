"""Serves files: an output to every client that has its URL, an upload to its owner."""

from __future__ import annotations

import asyncio
import hmac
import re
import stat
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from router.errors import NotFound, RangeNotSatisfiable, Unauthorized
from router.http.auth import caller_of
from router.http.context import context_of
from router.http.headers import header
from router.http.middleware import INERT
from router.media_types import ANY_TYPE, MEDIA_TYPE

OUTPUT_PATH = "/v1/outputs/{id}/{name}"
# A browser shows files of these types. It saves all others, HTML included.
SHOWN = ("image/", "audio/", "video/")
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
    return await file_response(request, file.path, file.name, file.media_type)


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
        found = await asyncio.to_thread(Path(path).stat)
    except FileNotFoundError:
        raise NotFound(f"Cannot find file '{name[:80]}': it is not kept any more") from None
    if not stat.S_ISREG(found.st_mode):
        raise NotFound(f"Cannot find file '{name[:80]}'")
    _check_range(request, found.st_size)
    kind = media_type if MEDIA_TYPE.fullmatch(media_type) else ANY_TYPE
    is_shown = kind.lower().startswith(SHOWN)
    return FileResponse(
        path,
        headers=HEADERS,
        media_type=kind,
        filename=name,
        stat_result=found,
        content_disposition_type="inline" if is_shown else "attachment",
    )


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
