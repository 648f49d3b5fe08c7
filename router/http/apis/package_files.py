"""What a package brings for people: its example with the files that it names, and its view.json."""

from __future__ import annotations

import asyncio
import mimetypes
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import NotFound
from router.http.context import context_of
from router.http.errors import json_response
from router.media_types import ANY_TYPE
from router.models.catalog import Package
from router.models.view import wrong_names

MAX_EXAMPLE_BYTES = 64 << 20


async def example(request: Request) -> Response:
    """Return example.json: inputs by name, where `@` begins a file's name. {} without one."""
    package = context_of(request).package(request.path_params["model"])
    return json_response(dict(package.example))


async def example_file(request: Request) -> Response:
    """Return the file that example.json names for this input. Raises NotFound without one."""
    package = context_of(request).package(request.path_params["model"])
    path = _named(package, request.path_params["input"])
    content = await asyncio.to_thread(_read, path) if path else None
    if path is None or content is None:
        raise NotFound(f"Cannot find an example of '{request.path_params['input'][:80]}'")
    return Response(content, media_type=mimetypes.guess_type(path.name)[0] or ANY_TYPE)


def _named(package: Package, name: str) -> Path | None:
    """Return the file of that input in the package's folder, or None: never one outside of it."""
    value = package.example.get(name)
    if not isinstance(value, str) or not value.startswith("@"):
        return None
    path = (package.folder / value[1:]).resolve()
    return path if path.is_relative_to(package.folder.resolve()) else None


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_EXAMPLE_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MAX_EXAMPLE_BYTES else None


async def view(request: Request) -> Response:
    """Return view.json. `problems` lists what it names and the model's schema lacks."""
    context = context_of(request)
    package = context.package(request.path_params["model"])
    await context.input_schema(package)
    problems = wrong_names(package.view, context.schemas.openapi[package.name])
    told = {"problems": list(problems)} if problems else {}
    return json_response({**package.view, **told})


def add_routes(app: Starlette) -> None:
    """Add the routes of what a package brings for people."""
    app.add_route("/models/{model}/view.json", view, methods=["GET"])
    app.add_route("/models/{model}/example.json", example, methods=["GET"])
    app.add_route("/models/{model}/example/{input}", example_file, methods=["GET"])
