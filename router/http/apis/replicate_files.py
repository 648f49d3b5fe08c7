"""Replicate's /v1/files: uploads that several predictions may use."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import PayloadTooLarge
from router.http.apis.replicate_views import file_view
from router.http.auth import caller_of
from router.http.context import context_of
from router.http.errors import json_response
from router.http.multipart import Form, read_form
from router.http.prediction_params import base_url, wrong
from router.inputs.json_text import load_json
from router.media_types import MEDIA_TYPE
from router.prediction import FileRef, Json
from router.storage.store import Files


async def create(request: Request) -> Response:
    """POST multipart/form-data: one `content`, and optionally `filename`, `type`, `metadata`."""
    context = context_of(request)
    form = await read_form(request, context.files, context.max_upload_bytes)
    upload, metadata = take_file(form, context.files)
    stored = await context.uploads.add(upload, metadata, caller_of(request))
    return json_response(file_view(stored, base_url(request)), 201)


async def get(request: Request) -> Response:
    """Return one file."""
    uploads = context_of(request).uploads
    stored = await uploads.get(request.path_params["id"], caller_of(request))
    return json_response(file_view(stored, base_url(request)))


async def delete(request: Request) -> Response:
    """Delete one file. Predictions that use it continue."""
    uploads = context_of(request).uploads
    await uploads.delete(request.path_params["id"], caller_of(request))
    return Response(status_code=204)


async def list_files(request: Request) -> Response:
    """Return the caller's files, newest first, on one page."""
    base = base_url(request)
    found = await context_of(request).uploads.list(caller_of(request))
    results: list[dict[str, Any]] = [file_view(f, base) for f in found]
    return json_response({"previous": None, "next": None, "results": results})


def add_routes(app: Starlette) -> None:
    """Add the routes of files."""
    app.add_route("/v1/files", create, methods=["POST"])
    app.add_route("/v1/files", list_files, methods=["GET"])
    app.add_route("/v1/files/{id}", get, methods=["GET"])
    app.add_route("/v1/files/{id}", delete, methods=["DELETE"])


MAX_METADATA_BYTES = 64 << 10
MAX_NAME_BYTES = 255
MAX_DEPTH = 16
BRACKETED = re.compile(r"metadata((?:\[[^\[\]]*\])+)")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DEFAULT_NAME = "file"


def take_file(form: Form, files: Files) -> tuple[FileRef, dict[str, Json]]:
    """Return the upload and its metadata, and delete every other file of the form.

    When this raises, all files of the form are deleted. Raises InvalidInput when a part of the
    form is wrong, and InsufficientStorage when the disk has no room for the file.
    """
    try:
        name, media_type = _name(form), _media_type(form)
        metadata = _metadata(form)
        content = _content(form, files)
    except BaseException:
        files.remove(form.uploads)
        raise
    files.remove(u for u in form.uploads if u is not content)
    return replace(
        content,
        name=name or content.name or DEFAULT_NAME,
        media_type=media_type or content.media_type,
    ), metadata


def _content(form: Form, files: Files) -> FileRef:
    """Return the one file. When it came as text, it is written to the spool here."""
    contents = [u for u in form.uploads if u.field == "content"]
    texts = form.texts.get("content", [])
    if len(contents) + len(texts) != 1:
        raise wrong("content", f"must be one file, got {len(contents) + len(texts)}")
    if contents:
        return contents[0]
    file = files.create("")
    upload = FileRef("content", str(file.path), "", media_type="text/plain")
    form.parts.append(upload)
    try:
        file.write(texts[0].encode())
    finally:
        file.close()
    return upload


def _name(form: Form) -> str:
    name = _one_text(form, "filename")
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES or CONTROL.search(name):
        raise wrong("filename", f"must be at most {MAX_NAME_BYTES} bytes on one line")
    return name


def _media_type(form: Form) -> str:
    media_type = _one_text(form, "type").strip()
    if media_type and not MEDIA_TYPE.fullmatch(media_type):
        raise wrong("type", "must be a media type like image/png")
    return media_type


def _one_text(form: Form, name: str) -> str:
    texts = form.texts.get(name, [])
    if len(texts) > 1 or any(u.field == name for u in form.uploads):
        raise wrong(name, "must be given once, as text")
    return texts[0] if texts else ""


def _metadata(form: Form) -> dict[str, Json]:
    documents: list[str | bytes] = [*form.texts.get("metadata", [])]
    documents += [_head(u) for u in form.uploads if u.field == "metadata"]
    values = {k: v for k, v in form.texts.items() if BRACKETED.fullmatch(k)}
    problem = wrong("metadata", f"must be one JSON object of at most {MAX_METADATA_BYTES} bytes")
    if len(documents) + bool(values) > 1:
        raise problem
    if values:
        return _nested(values)
    if not documents:
        return {}
    try:
        metadata = load_json(documents[0])
    except (ValueError, PayloadTooLarge):
        raise problem from None
    if not isinstance(metadata, dict) or len(documents[0]) > MAX_METADATA_BYTES:
        raise problem
    return metadata


def _nested(values: dict[str, list[str]]) -> dict[str, Json]:
    """Return `metadata[a][b]` and `metadata[c][]` as objects and lists, with texts as values.

    Raises InvalidInput when a name is malformed or two values have the same place.
    """
    root: dict[str, Json] = {}
    for name, texts in values.items():
        found = BRACKETED.fullmatch(name)
        keys = found[1][1:-1].split("][") if found else []
        is_list = keys[-1] == ""
        path = keys[:-1] if is_list else keys
        if not path or "" in path or len(path) > MAX_DEPTH or (len(texts) > 1 and not is_list):
            raise wrong("metadata", f"has a part '{name[:80]}' that names no key of an object")
        holder = root
        for key in path[:-1]:
            holder = holder.setdefault(key, {})
            if not isinstance(holder, dict):
                raise wrong("metadata", f"has two values at '{name[:80]}'")
        if path[-1] in holder:
            raise wrong("metadata", f"has two values at '{name[:80]}'")
        holder[path[-1]] = list(texts) if is_list else texts[0]
    return root


def _head(upload: FileRef) -> bytes:
    with Path(upload.path).open("rb") as file:
        return file.read(MAX_METADATA_BYTES + 1)
