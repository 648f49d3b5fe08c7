"""What a browser is told, by every answer."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from router import http
from router.http.auth import AuthMiddleware
from router.http.body_timeout import BodyReads
from router.http.middleware import with_security_headers
from router.keys.key import FixedKeys, parse_keys
from router.shutdown import Shutdown

APP = "https://app.example.com"
# Browsers send these without asking: Accept is safelisted by CORS, the length is theirs alone.
UNASKED = {"accept", "content-length"}
# `request.headers.get("name"`, `…["name"`, `header(request.scope, b"name"`, and the same of a NAME.
READ = re.compile(
    r"(?:request\.headers(?:\.get\(|\[)|header\(request\.scope,)\s*(?:b?\"([^\"]+)\"|([A-Z_]+))"
)


def browser(*origins: str) -> httpx.AsyncClient:
    """A client of an application with a key, for pages of `origins`."""

    async def page(request: Request) -> Response:
        return HTMLResponse("<p>")

    async def strict(request: Request) -> Response:
        return PlainTextResponse("x", headers={"Content-Security-Policy": "default-src 'self'"})

    app = Starlette()
    app.add_route("/health", page)
    app.add_route("/strict", strict)
    guard = AuthMiddleware(app, FixedKeys(parse_keys(["k" * 16])), 1 << 20, BodyReads(Shutdown()))
    transport = httpx.ASGITransport(with_security_headers(guard, origins))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_every_answer_has_the_security_headers() -> None:
    """A refusal too. A page that sets no policy itself runs nothing and cannot be framed."""
    async with browser() as http:
        refused = await http.get("/strict")
        page = await http.get("/health")
        strict = await http.get("/strict", headers={"authorization": "Bearer " + "k" * 16})
    assert refused.status_code == 401
    for answer in (refused, page, strict):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert refused.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["content-security-policy"] == refused.headers["content-security-policy"]
    assert "frame-ancestors 'none'; sandbox" in page.headers["content-security-policy"]
    assert strict.headers["content-security-policy"] == "default-src 'self'"
    assert "access-control-allow-origin" not in page.headers


def preflight(origin: str) -> dict[str, str]:
    """What a browser asks before it sends a signed-in request."""
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,prefer",
    }


async def test_a_listed_page_may_call_and_read_refusals() -> None:
    """Its preflight, which carries no key, is granted; a 401 can be read, Retry-After seen."""
    async with browser(APP) as http:
        granted = await http.options("/health", headers=preflight(APP))
        refused = await http.get("/strict", headers={"Origin": APP})
    assert granted.status_code == 200
    assert granted.headers["access-control-allow-origin"] == APP
    asked = {"authorization", "content-type", "prefer"}
    allowed = {
        h.strip().lower() for h in granted.headers["access-control-allow-headers"].split(",")
    }
    assert asked <= allowed
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == APP
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in refused.headers


def headers_that_apis_read() -> set[str]:
    """Lower case, from the APIs' own source."""
    names = {"authorization", "x-request-id"}  # read by the layers around the APIs
    for found in pkgutil.walk_packages(http.__path__, "router.http."):
        module = importlib.import_module(found.name)
        assert module.__file__ is not None
        for literal, constant in READ.findall(Path(module.__file__).read_text()):
            name = literal or getattr(module, constant)
            names.add((name.decode() if isinstance(name, bytes) else name).lower())
    return names - UNASKED


async def test_a_page_may_send_every_header_that_is_read() -> None:
    """Each by itself: one that is missing would fail its whole preflight."""
    names = headers_that_apis_read()
    assert {"x-callme-priority", "last-event-id", "prefer", "cancel-after"} <= names
    async with browser(APP) as http:
        for name in sorted(names):
            asked = {**preflight(APP), "Access-Control-Request-Headers": name}
            assert (await http.options("/health", headers=asked)).status_code == 200, name


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.com.evil", "null"])
async def test_other_pages_may_not(origin: str) -> None:
    """Neither preflight nor answer names their origin, with a list or without."""
    for listed in ((APP,), ()):
        async with browser(*listed) as http:
            asked = await http.options("/health", headers=preflight(origin))
            read = await http.get("/health", headers={"Origin": origin})
        assert asked.status_code in (400, 401, 405)
        assert "access-control-allow-origin" not in {**asked.headers, **read.headers}
