"""Serves the page for people, to browsers only: an ASGI layer outside the check of keys.

It answers with fixed files of the router and passes no request on without a key, so it shows
nothing that a key protects. Everything that the page then asks for needs one.
"""

from __future__ import annotations

import re

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from router.http.headers import header
from router.pages.files import POLICY, StaticFile, shell, static_file

STATIC = "/static/"
# A page for every client: no API has this path.
DOCS = "/docs"
# Paths that are a page for a browser and an API for every other client.
PAGE = re.compile(r"/|/models/[^/]+|/predictions(/[^/]+)?")
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(self)",
    # The same path answers an API client with JSON, and a file is sent packed or not.
    "Vary": "Accept, Accept-Encoding",
}
ROUTE = "callme_route"


class Pages:
    """ASGI layer that answers GET and HEAD for the page and its files, and passes on the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file of the page, or pass the request on."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            file, route = _wanted(scope)
            if file is not None:
                scope[ROUTE] = route
                await _response(scope, file)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _wanted(scope: Scope) -> tuple[StaticFile | None, str]:
    """Return the file that answers this request, and what the log calls its path.

    None where the request is for an API.
    """
    path: str = scope["path"]
    if path.startswith(STATIC):
        return static_file(path.removeprefix(STATIC)), f"{STATIC}{{path}}"
    if path == DOCS:
        return shell(0), DOCS
    if "text/html" not in (header(scope, b"accept") or "").lower() or not PAGE.fullmatch(path):
        return None, ""
    return shell(path.count("/") - 1), "page"


def _response(scope: Scope, file: StaticFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if file.etag in (header(scope, b"if-none-match") or ""):
        return Response(status_code=304, headers=headers)
    body = file.body
    if "gzip" in (header(scope, b"accept-encoding") or ""):
        body = file.packed
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    return Response(b"" if scope["method"] == "HEAD" else body, 200, headers, file.media_type)
