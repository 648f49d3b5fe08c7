"""Files that go out: outputs, to everyone who knows their URL, and uploads, to their holder."""

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
# A browser shows these in their place; it saves all others, a page among them.
SHOWN = ("image/", "audio/", "video/")
ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
HEADERS = {
    **{name.decode(): value.decode() for name, value in INERT},
    # The URL alone opens the file, so a page of the app may show it; no cookie or address does.
    "cross-origin-resource-policy": "cross-origin",
}


async def output(request: Request) -> Response:
    """GET a file of an output, whole or a range of it. Its URL needs no key."""
    prediction_id, name = request.path_params["id"], request.path_params["name"]
    predictions = context_of(request).predictions
    given = request.query_params.get("token", "").encode()
    if not hmac.compare_digest(given, predictions.outputs.token(prediction_id, name).encode()):
        raise Unauthorized("Cannot read the file: this is not an output's URL")
    file = await predictions.links.file(prediction_id, name)
    return await file_response(request, file.path, file.name, file.media_type)


async def upload(request: Request) -> Response:
    """GET the content of an uploaded file, for its holder."""
    uploads = context_of(request).uploads
    stored = await uploads.get(request.path_params["id"], caller_of(request))
    return await file_response(request, stored.path, stored.name, stored.content_type)


async def file_response(request: Request, path: str, name: str, media_type: str) -> Response:
    """The file with its type, its length and a name to save it by; one range of it if that is
    asked for. Raises NotFound, RangeNotSatisfiable."""
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
    """Starlette reads the header. It is let through when it asks for one range that there is; a
    header that asks for several, or says something else, is ignored, as RFC 9110 allows."""
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
    """Where files are read."""
    app.add_route(OUTPUT_PATH, output, methods=["GET"])
    app.add_route("/v1/files/{id}/download", upload, methods=["GET"])
