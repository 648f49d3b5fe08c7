"""A guarded application, clients of it, and requests that are signed as the edge function does."""

from __future__ import annotations

import hashlib
import hmac
import time

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from router.errors import (
    RouterError,
)
from router.http.auth import AuthMiddleware
from router.http.body_timeout import BodyReads
from router.http.errors import on_router_error
from router.keys.key import FixedKeys, parse_keys, verifier_of
from router.shutdown import Shutdown

KEY = "0123456789abcdef0123456789abcdef"
BOUNDARY = "multipart/form-data; boundary=b"


def guarded(*keys: str, max_body_bytes: int = 1 << 20) -> tuple[AuthMiddleware, list[str]]:
    """A guarded application, and the list of what its handlers did."""
    done: list[str] = []

    async def reading(request: Request) -> Response:
        body = b"".join([chunk async for chunk in request.stream()])
        done.append("read")
        return PlainTextResponse(body)

    async def acting(request: Request) -> Response:
        done.append("acted")
        return PlainTextResponse("acted")

    app = Starlette(exception_handlers={RouterError: on_router_error})
    app.add_route("/health", acting, methods=["GET"])
    app.add_route("/predictions/{id}", acting, methods=["GET"])
    app.add_route("/predictions/{id}/cancel", acting, methods=["POST"])
    app.add_route("/{model}", reading, methods=["POST"])
    return AuthMiddleware(
        app, FixedKeys(parse_keys(keys)), max_body_bytes, BodyReads(Shutdown())
    ), done


def client(guard: AuthMiddleware, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client that comes from `peer`."""
    transport = httpx.ASGITransport(app=guard, client=(peer, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7777")


def signed(
    method: str, target: str, body: bytes = b"", *, key: str = KEY, **changes: str
) -> dict[str, str]:
    """The headers that sign a request as the edge function does, then `changes`."""
    timestamp = changes.get("timestamp", str(int(time.time())))
    nonce = changes.get("nonce", hashlib.sha256(f"{target}{time.time_ns()}".encode()).hexdigest())
    content_type = changes.get("content_type", BOUNDARY if body else "")
    digest = hashlib.sha256(body).hexdigest()
    text = "\n".join(["v2", timestamp, nonce, method, target, content_type, digest])
    signature = hmac.new(verifier_of(key), text.encode(), hashlib.sha256).hexdigest()
    headers = {
        "x-callme-timestamp": timestamp,
        "x-callme-nonce": nonce,
        "x-callme-content-sha256": changes.get("digest", digest),
        "x-callme-signature": changes.get("signature", f"v2={signature}"),
    }
    return headers | ({"content-type": content_type} if body else {})
