"""Replicate's /v1/files: uploads that several predictions may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.api.callbacks import base_url, wrong
from router.api.context import context_of
from router.api.error_handlers import json_response
from router.api.multipart import Form, read_form
from router.api.replicate_views import file_view
from router.domain.prediction import FileRef, Json
from router.runtime.inputs import load_json
from router.runtime.intake import Upload

MAX_METADATA_BYTES = 64 << 10


async def create(request: Request) -> Response:
    """POST multipart/form-data: `content`, the file, and `metadata`, a JSON object."""
    context = context_of(request)
    form = await read_form(request, context.files, context.max_upload_bytes)
    try:
        content = _content(form)
        metadata = _metadata(form)
    except BaseException:
        context.files.remove(_ref(u) for u in form.uploads)
        raise
    # npm's client sends the metadata as a file, too.
    context.files.remove(_ref(u) for u in form.uploads if u is not content)
    stored = await context.uploads.add(content, metadata)
    return json_response(file_view(stored, base_url(request)), 201)


def _content(form: Form) -> Upload:
    contents = [u for u in form.uploads if u.field == "content"]
    if len(contents) != 1:
        raise wrong("content", f"must be one file, got {len(contents)}")
    return contents[0]


def _metadata(form: Form) -> dict[str, Json]:
    texts: list[bytes] = [t.encode() for t in form.texts.get("metadata", ())]
    texts += [_head(u) for u in form.uploads if u.field == "metadata"]
    if not texts:
        return {}
    try:
        metadata = load_json(texts[0])
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or len(texts) > 1:
        raise wrong("metadata", f"must be one JSON object of at most {MAX_METADATA_BYTES} bytes")
    return metadata


def _head(upload: Upload) -> bytes:
    with Path(upload.path).open("rb") as file:
        return file.read(MAX_METADATA_BYTES)


def _ref(upload: Upload) -> FileRef:
    return FileRef(upload.field, upload.path, upload.name)


async def get(request: Request) -> Response:
    """One file."""
    stored = await context_of(request).uploads.get(request.path_params["id"])
    return json_response(file_view(stored, base_url(request)))


async def delete(request: Request) -> Response:
    """Delete one; what runs with it goes on."""
    await context_of(request).uploads.delete(request.path_params["id"])
    return Response(status_code=204)


async def list_files(request: Request) -> Response:
    """All files, newest first, on one page."""
    base = base_url(request)
    results: list[dict[str, Any]] = [
        file_view(f, base) for f in await context_of(request).uploads.list()
    ]
    return json_response({"previous": None, "next": None, "results": results})


def add_routes(app: Starlette) -> None:
    """The files' routes."""
    app.add_route("/v1/files", create, methods=["POST"])
    app.add_route("/v1/files", list_files, methods=["GET"])
    app.add_route("/v1/files/{id}", get, methods=["GET"])
    app.add_route("/v1/files/{id}", delete, methods=["DELETE"])
