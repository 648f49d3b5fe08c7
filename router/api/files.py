"""Replicate's /v1/files: uploads that several predictions may use."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.api.callbacks import base_url
from router.api.caller import caller_of
from router.api.context import context_of
from router.api.error_handlers import json_response
from router.api.file_form import take_file
from router.api.multipart import read_form
from router.api.replicate_views import file_view


async def create(request: Request) -> Response:
    """POST multipart/form-data; what it may hold: `router.api.file_form`."""
    context = context_of(request)
    form = await read_form(request, context.files, context.max_upload_bytes)
    upload, metadata = take_file(form, context.files)
    stored = await context.uploads.add(upload, metadata, caller_of(request))
    return json_response(file_view(stored, base_url(request)), 201)


async def get(request: Request) -> Response:
    """One file."""
    uploads = context_of(request).uploads
    stored = await uploads.get(request.path_params["id"], caller_of(request))
    return json_response(file_view(stored, base_url(request)))


async def delete(request: Request) -> Response:
    """Delete one; what runs with it goes on."""
    uploads = context_of(request).uploads
    await uploads.delete(request.path_params["id"], caller_of(request))
    return Response(status_code=204)


async def list_files(request: Request) -> Response:
    """The caller's files, newest first, on one page."""
    base = base_url(request)
    found = await context_of(request).uploads.list(caller_of(request))
    results: list[dict[str, Any]] = [file_view(f, base) for f in found]
    return json_response({"previous": None, "next": None, "results": results})


def add_routes(app: Starlette) -> None:
    """The files' routes."""
    app.add_route("/v1/files", create, methods=["POST"])
    app.add_route("/v1/files", list_files, methods=["GET"])
    app.add_route("/v1/files/{id}", get, methods=["GET"])
    app.add_route("/v1/files/{id}", delete, methods=["DELETE"])
