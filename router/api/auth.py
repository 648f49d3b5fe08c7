"""Who may call: bearer keys, signed requests, or, without any key, this machine alone.

A plain ASGI layer around the application, so that no route can be added outside it.

A signed request (the edge function's way: the key never travels) carries
`X-Callme-Timestamp`, `X-Callme-Nonce`, `X-Callme-Signature: v1=<hex>` and, if it has one,
`X-Callme-Key-Id`. The signature is HMAC-SHA256 with the key over these, joined by newlines:
`v1`, timestamp, nonce, method, path with query, Content-Type, hex SHA-256 of the body.
tests/edge/signature_vectors.json holds examples that both sides are tested against.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.error_handlers import error_response
from router.api.patience import BodyReads
from router.domain.errors import (
    Forbidden,
    PayloadTooLarge,
    QueueFull,
    RouterError,
    Unauthorized,
)

OPEN_PATHS = frozenset({"/health"})
# Any of these means that the request came through a proxy, whoever the peer is.
PROXY_HEADERS = (
    "cf-ray",
    "cf-connecting-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "forwarded",
    "via",
)
# `Token` is what Replicate's clients sent before 2024.
BEARER_SCHEMES = frozenset({"bearer", "token"})
CLOCK_SKEW_S = 120
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NONCE_MAX_CHARS = 128
NONCES_KEPT = 100_000
# Bodies are held before it is known whose they are, so there is a bound on how many.
MAX_UNVERIFIED = 32
SIGNATURE_PREFIX = "v1="


@dataclass(frozen=True, slots=True)
class Key:
    """An accepted key. `id` names it in logs and in fairness between clients."""

    id: str
    secret: str


def parse_keys(texts: Iterable[str]) -> tuple[Key, ...]:
    """Keys from `id:secret` or `secret`; without an id they are called key1, key2 …"""
    keys = []
    for i, text in enumerate(texts, 1):
        key_id, colon, secret = text.partition(":")
        keys.append(Key(key_id, secret) if colon else Key(f"key{i}", text))
    return tuple(keys)


class NonceCache:
    """Nonces seen within the clock skew; older ones are refused by their timestamp."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()

    def claim(self, nonce: str, now: float) -> bool:
        """False when the nonce has been used."""
        while self._seen and next(iter(self._seen.values())) < now - 2 * CLOCK_SKEW_S:
            self._seen.popitem(last=False)
        if nonce in self._seen or len(self._seen) >= NONCES_KEPT:
            return False
        self._seen[nonce] = now
        return True


class Guard:
    """The ASGI layer. With keys, every path but OPEN_PATHS needs one; without, only direct
    requests from this machine's own programs are served."""

    def __init__(
        self, app: ASGIApp, keys: Iterable[Key], max_body_bytes: int, reads: BodyReads
    ) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._max_body_bytes = max_body_bytes
        self._reads = reads
        self._nonces = NonceCache()
        self._unverified = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        receive = self._reads.watch(receive)
        try:
            signature = self._admit(scope, Headers(scope=scope))
        except RouterError as error:
            await error_response(error)(scope, receive, send)
            return
        if signature is None:
            await self._app(scope, receive, send)
            return
        self._unverified += 1
        body = SignedBody(receive, signature, self._max_body_bytes, self._one_verified)
        try:
            await self._serve_signed(scope, body, send)
        finally:
            body.settle()

    async def _serve_signed(self, scope: Scope, body: SignedBody, send: Send) -> None:
        """Nothing that the application says reaches a client whose signature does not hold."""
        refused = False

        async def refuse(error: RouterError) -> None:
            nonlocal refused
            refused = True
            await error_response(error)(scope, body.receive, send)

        async def send_verified(message: Message) -> None:
            if message["type"] == "http.response.start":
                try:
                    await body.drain()
                except RouterError as error:
                    await refuse(error)
            if not refused:
                await send(message)

        try:
            if self._unverified > MAX_UNVERIFIED:
                busy = "Cannot verify: too many requests wait to be"
                raise QueueFull(busy, retry_after_s=1)
            if not _is_form_to_a_model(scope):
                await body.read_ahead()
        except RouterError as error:
            body.settle()
            await refuse(error)
            return
        await self._app(scope, body.receive, send_verified)

    def _one_verified(self) -> None:
        self._unverified -= 1

    def _admit(self, scope: Scope, headers: Headers) -> Signature | None:
        """Raises Unauthorized or Forbidden; a signature is still to be verified."""
        if not self._keys:
            require_this_machine(scope, headers)
            return None
        if "x-callme-signature" in headers:
            signature = self._read_signature(scope, headers)
            scope["callme_key_id"] = signature.keys[0].id
            return signature
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() not in BEARER_SCHEMES:
            raise Unauthorized("Cannot authenticate: send 'Authorization: Bearer <key>' or sign")
        for key in self._keys:
            if hmac.compare_digest(token.strip().encode(), key.secret.encode()):
                scope["callme_key_id"] = key.id
                return None
        raise Unauthorized("Cannot authenticate: the key is not accepted")

    def _read_signature(self, scope: Scope, headers: Headers) -> Signature:
        timestamp = headers.get("x-callme-timestamp", "")
        nonce = headers.get("x-callme-nonce", "")
        signature = headers["x-callme-signature"]
        now = time.time()
        if not TIMESTAMP.fullmatch(timestamp) or abs(int(timestamp) - now) > CLOCK_SKEW_S:
            raise Unauthorized("Cannot verify: the timestamp is over two minutes off")
        if not 16 <= len(nonce) <= NONCE_MAX_CHARS or not signature.startswith(SIGNATURE_PREFIX):
            raise Unauthorized("Cannot verify: the nonce or the signature is malformed")
        key_id = headers.get("x-callme-key-id")
        keys = [k for k in self._keys if key_id is None or k.id == key_id]
        if not keys:
            raise Unauthorized("Cannot verify: there is no such key")
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
        query = scope.get("query_string", b"").decode("latin-1")
        target = f"{path}?{query}" if query else path
        content_type = headers.get("content-type", "")
        head = "\n".join(["v1", timestamp, nonce, scope["method"], target, content_type])
        hex_digest = signature.removeprefix(SIGNATURE_PREFIX)
        return Signature(keys, head, hex_digest, nonce, self._nonces)


@dataclass(frozen=True, slots=True)
class Signature:
    """A request's claim; `head` is all that is signed but the body's hash."""

    keys: list[Key]
    head: str
    hex_digest: str
    nonce: str
    nonces: NonceCache

    def verify(self, body_sha256: str) -> None:
        """Raises Unauthorized."""
        signed = f"{self.head}\n{body_sha256}".encode("latin-1")
        for key in self.keys:
            expected = hmac.new(key.secret.encode(), signed, hashlib.sha256).hexdigest()
            if hmac.compare_digest(expected.encode(), self.hex_digest.encode()):
                # Claimed only now, so that nobody can burn another's nonce.
                if not self.nonces.claim(self.nonce, time.time()):
                    raise Unauthorized("Cannot verify: this request was seen before")
                return
        raise Unauthorized("Cannot verify: the signature does not match")


class SignedBody:
    """A body that is not believed before its end has been seen.

    `read_ahead` verifies before the application is called: right for everything small, and for
    every handler that acts without reading. `receive` verifies with the last chunk: right for
    a form that is spooled as it comes. `drain` verifies before any answer, should a handler
    not have read to the end.
    """

    def __init__(
        self,
        receive: Receive,
        signature: Signature,
        max_bytes: int,
        on_settled: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._on_settled = on_settled
        self._signature = signature
        self._left_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._ahead: deque[Message] = deque()
        self._settled = False

    async def receive(self) -> Message:
        """The next message; raises Unauthorized in place of the last of a body not signed."""
        return self._ahead.popleft() if self._ahead else await self._next()

    async def read_ahead(self) -> None:
        """Read and verify the whole body now. Raises Unauthorized, PayloadTooLarge."""
        while not self._settled:
            self._ahead.append(await self._next())

    async def drain(self) -> None:
        """Verify what the application left unread, and forget it. Raises as `read_ahead`."""
        while not self._settled:
            await self._next()

    def settle(self) -> None:
        """No more is expected of it: it was verified, refused, or its request is over."""
        if not self._settled:
            self._settled = True
            self._on_settled()

    async def _next(self) -> Message:
        message = await self._receive()
        if self._settled:
            return message
        if message["type"] != "http.request":
            self.settle()
            raise Unauthorized("Cannot verify: the body ended early")
        chunk = message.get("body", b"")
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            self.settle()
            raise PayloadTooLarge("Cannot read the body: it is too large")
        self._digest.update(chunk)
        if not message.get("more_body", False):
            self.settle()
            self._signature.verify(self._digest.hexdigest())
        return message


def _is_form_to_a_model(scope: Scope) -> bool:
    """POST /{model} with a multipart form: read to its end before anything is done with it."""
    content_type = Headers(scope=scope).get("content-type", "").lower()
    return (
        scope["method"] == "POST"
        and scope["path"].count("/") == 1
        and content_type.startswith("multipart/form-data")
    )


def require_this_machine(scope: Scope, headers: Mapping[str, str]) -> None:
    """Raises Forbidden unless the request came straight from a program on this machine.

    A page in this machine's browser is not one: its Origin, or after DNS rebinding its Host,
    names another site.
    """
    client = scope.get("client")
    direct = not any(h in headers for h in PROXY_HEADERS)
    if not (client and _is_loopback(client[0]) and direct):
        raise Forbidden("Cannot serve other machines: no key is configured (CALLME_KEYS)")
    hosts = [_host(f"//{headers.get('host', 'localhost')}")]
    if origin := headers.get("origin"):
        hosts.append(_host(origin))
    if not all(map(_is_loopback, hosts)):
        raise Forbidden("Cannot serve web pages of other sites: no key is configured")


@functools.lru_cache(maxsize=256)
def _host(url: str) -> str:
    """The host of a URL, "" where there is none that can be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
