"""Authentication by bearer key or signed request. Before the first key, only this machine may call.

This is a plain ASGI layer around the application, so none of its routes can be added outside. Only
the pages' own files (`router.http.pages`) are: they show nothing of the box.

How a request is checked (`AuthMiddleware._admit`), by its head alone:
1. /health is open.
2. While no key is required, as before the first one exists: only direct requests of programs on
   this machine are served; any other gets 403. This holds for URLs with a token too.
3. A path of UNGUESSABLE_URLS needs no key: its handler checks the token in its URL.
4. A signed request (`X-Callme-Signature`): `router.http.signatures` checks its timestamp, 120 s
   either way, and its HMAC-SHA256 over seven fields. Then its nonce must be new, and its body must
   have the signed hash. Local keys sign nothing.
5. Else `Authorization: Bearer KEY` (or `Token KEY`): the key's verifier,
   HMAC-SHA256 of a fixed text keyed with KEY, must equal a stored one (`router.keys.key`;
   `router.keys.key_store` keeps only verifiers). A local key is accepted only from this machine.

A key or signature that is not accepted: 401 with `WWW-Authenticate: Bearer`. A key over its limits
(`KeyLimits`): 429 with `Retry-After`. A path for admins (`admin_only`), called with a
key that is not an admin's: 403. The body of each is the error of the API that was called
(`router.http.errors`).
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import Forbidden, RateLimited, RouterError, Unauthorized
from router.http.body_timeout import BodyReads
from router.http.errors import render_error
from router.http.headers import header
from router.http.signatures import NonceCache, Signed, SignedBody, read_signature
from router.keys.key import TRUSTED, Caller, Key, KeySource, verifier_of

OPEN_PATHS = frozenset({"/health"})
# Each URL under these prefixes contains a token of its own. Its handler checks the token
# (streams.py, downloads.py and remote_files.py in router/http/apis).
UNGUESSABLE_URLS = ("/v1/streams/", "/v1/files/streams/", "/v1/outputs/", "/v1/remote-files/")
# A request with any of these headers came through a proxy, whatever its peer address is.
PROXY_HEADERS = frozenset(
    {
        b"cf-ray",
        b"cf-connecting-ip",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-real-ip",
        b"forwarded",
        b"via",
    }
)
# Replicate's clients sent `Token` before 2024.
BEARER_SCHEMES = frozenset({"bearer", "token"})
SIGNATURE_HEADER = b"x-callme-signature"


class AuthMiddleware:
    """ASGI layer that checks every request; see the head of this module."""

    def __init__(
        self, app: ASGIApp, keys: KeySource, max_body_bytes: int, reads: BodyReads
    ) -> None:
        self._app = app
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._reads = reads
        self._limits = KeyLimits()
        self._nonces = NonceCache()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application, or answer it with an error."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        receive = self._reads.watch(receive)
        try:
            admitted = self._admit(scope)
        except RouterError as error:
            await render_error(scope, error)(scope, receive, send)
            return
        if isinstance(admitted, Signed):
            await self._serve_signed(scope, receive, send, admitted)
        elif admitted is None:
            await self._app(scope, receive, send)
        else:
            await self._serve_bearer(scope, receive, send, admitted)

    def _admit(self, scope: Scope) -> Key | Signed | None:
        """Decide by the head alone, before any of the body is read.

        Return the key, the checked signature, or None where no key is needed. Raises Unauthorized
        when the key or the signature is not accepted, and Forbidden when there is no key and the
        request does not come from this machine.
        """
        accepted = self._keys.current()
        if not accepted.required:
            require_this_machine(scope)
            set_caller(scope, TRUSTED)
            return None
        if scope["path"].startswith(UNGUESSABLE_URLS):
            return None
        if header(scope, SIGNATURE_HEADER) is not None:
            return read_signature(scope, Headers(scope=scope), accepted.keys)
        scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
        if scheme.lower() not in BEARER_SCHEMES:
            raise Unauthorized("Cannot authenticate: send 'Authorization: Bearer <key>' or sign")
        verifier = verifier_of(token.strip())
        for key in accepted.keys:
            fits = hmac.compare_digest(verifier, key.verifier)
            if fits and (not key.local or _is_direct(scope)):
                return key
        raise Unauthorized("Cannot authenticate: the key is not accepted")

    async def _serve_bearer(self, scope: Scope, receive: Receive, send: Send, key: Key) -> None:
        try:
            await self._limits.enter(key)
        except RouterError as error:
            await render_error(scope, error)(scope, receive, send)
            return
        set_caller(scope, key.caller())
        try:
            await self._app(scope, receive, send)
        finally:
            self._limits.leave(key)

    async def _serve_signed(
        self, scope: Scope, receive: Receive, send: Send, signed: Signed
    ) -> None:
        """Check the nonce, then the limits, then claim the nonce.

        In this order a repeated request does not count toward its key's limits, and a request
        over a limit does not use up its nonce.
        """
        key = signed.key
        try:
            self._nonces.check(key.id, signed.nonce)
            await self._limits.enter(key)
        except RouterError as error:
            await render_error(scope, error)(scope, receive, send)
            return
        set_caller(scope, key.caller())
        body = SignedBody(receive, signed.body_sha256, self._max_body_bytes)
        try:
            self._nonces.claim(key.id, signed.nonce, time.time())
            if not _is_form_to_a_model(scope):
                await body.read_ahead()
        except RouterError as error:
            await render_error(scope, error)(scope, receive, send)
        else:
            await self._respond_after_body(scope, body, send)
        finally:
            self._limits.leave(key)

    async def _respond_after_body(self, scope: Scope, body: SignedBody, send: Send) -> None:
        """Read and check the whole body before the response starts.

        So a client gets no response of the application to a body that was not signed.
        """
        refused = False

        async def send_checked(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                try:
                    await body.drain()
                except RouterError as error:
                    refused = True
                    await render_error(scope, error)(scope, body.receive, send)
            if not refused:
                await send(message)

        await self._app(scope, body.receive, send_checked)


def _is_form_to_a_model(scope: Scope) -> bool:
    """Whether this is POST /{model} with a multipart form.

    Its handler reads the form to the end before it does anything with it, so the body need not
    be read ahead.
    """
    content_type = Headers(scope=scope).get("content-type", "").lower()
    return (
        scope["method"] == "POST"
        and scope["path"].count("/") == 1
        and content_type.startswith("multipart/form-data")
    )


def require_this_machine(scope: Scope) -> None:
    """Check that the request came directly from a program on this machine.

    A page in this machine's browser does not count as one. Its Origin names another site; after
    DNS rebinding its Host does. Raises Forbidden when the request came from anywhere else.
    """
    if not _is_direct(scope):
        raise Forbidden(
            "Cannot serve other machines: there is no key yet (callme keys create NAME)"
        )
    host = header(scope, b"host")
    hosts = [_host(f"//{'localhost' if host is None else host}")]
    if origin := header(scope, b"origin"):
        hosts.append(_host(origin))
    if not all(map(_is_loopback, hosts)):
        raise Forbidden("Cannot serve web pages of other sites: there is no key yet")


def _is_direct(scope: Scope) -> bool:
    """Whether the request came from this machine, without a proxy."""
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    # ASGI gives the names in lower case.
    return PROXY_HEADERS.isdisjoint([name for name, _ in scope["headers"]])


@functools.lru_cache(maxsize=256)
def _host(url: str) -> str:
    """Return the host of a URL, or "" when it has none or cannot be parsed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@functools.lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


CALLER = "callme_caller"
Handler = Callable[[Request], Awaitable[Response]]


def set_caller(scope: Scope, caller: Caller) -> None:
    """Store the authenticated caller in the scope."""
    scope[CALLER] = caller


def caller_of(request: Request) -> Caller:
    """Return the authenticated caller.

    Raises Unauthorized when the path needs no key: such a request has no caller.
    """
    caller: Caller | None = request.scope.get(CALLER)
    if caller is None:
        raise Unauthorized("Cannot serve this without a key")
    return caller


def admin_only(handler: Handler) -> Handler:
    """Wrap a handler that shows data of every caller.

    The wrapped handler raises Forbidden when its caller is not an admin.
    """

    @functools.wraps(handler)
    async def wrapped(request: Request) -> Response:
        if not caller_of(request).is_admin:
            raise Forbidden(
                "Cannot show this: it needs an admin key (callme keys create NAME --admin)"
            )
        return await handler(request)

    return wrapped


# A slot becomes free when another response of the key ends. When that is, is not known.
CONCURRENT_RETRY_S = 1.0


class KeyLimits:
    """Counts the admitted requests of each key. There is one object for the whole application."""

    def __init__(self) -> None:
        # Measured: 5 µs per request. The storage for threads starts a thread at most requests.
        self._rates = MovingWindowRateLimiter(MemoryStorage())
        self._in_flight: Counter[str] = Counter()

    async def enter(self, key: Key) -> None:
        """Count one more request of this key.

        Raises RateLimited when the key is over a limit. A request over `requests_per_minute` is
        not counted. A request over `concurrent_requests` counts toward its minute only.
        """
        per_minute = key.requests_per_minute
        if per_minute is not None:
            item = RateLimitItemPerMinute(per_minute)
            if not await self._rates.hit(item, key.id):
                reset_at = (await self._rates.get_window_stats(item, key.id)).reset_time
                raise RateLimited(
                    f"Cannot serve more: this key may make {per_minute} requests a minute",
                    retry_after_s=max(reset_at - time.time(), CONCURRENT_RETRY_S),
                )
        at_once = key.concurrent_requests
        if at_once is not None and self._in_flight[key.id] >= at_once:
            raise RateLimited(
                f"Cannot serve more: this key may have {at_once} requests at a time",
                retry_after_s=CONCURRENT_RETRY_S,
            )
        self._in_flight[key.id] += 1

    def leave(self, key: Key) -> None:
        """Stop counting a request as in progress. Called when it has been answered."""
        self._in_flight[key.id] -= 1
        if self._in_flight[key.id] <= 0:
            del self._in_flight[key.id]
