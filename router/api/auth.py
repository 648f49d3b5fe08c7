"""Who may call: bearer keys, signed requests, or, without any key, this machine alone.

A plain ASGI layer around the application, so that no route can be added outside it.

A signed request (the edge function's way: the key never travels) carries
`X-Callme-Timestamp`, `X-Callme-Nonce`, `X-Callme-Signature: v1=<hex>` and, if it has one,
`X-Callme-Key-Id`. The signature is HMAC-SHA256 with the key over these, joined by newlines:
`v1`, timestamp, nonce, method, path with query, Content-Type, hex SHA-256 of the body. The
body is hashed as it streams; a mismatch is raised where the handler reads the last of it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.error_handlers import error_response
from router.domain.errors import Forbidden, RouterError, Unauthorized

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
CLOCK_SKEW_S = 120
NONCE_MAX_CHARS = 128
NONCES_KEPT = 100_000
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

    def __init__(self, app: ASGIApp, keys: Iterable[Key]) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._nonces = NonceCache()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            receive = self._admit(scope, receive)
        except RouterError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        if not self._keys:
            require_this_machine(scope, headers)
            return receive
        if "x-callme-signature" in headers:
            key, check = self._read_signature(scope, headers)
            scope["callme_key_id"] = key.id
            return check(receive)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for key in self._keys:
                if hmac.compare_digest(token.strip().encode(), key.secret.encode()):
                    scope["callme_key_id"] = key.id
                    return receive
            raise Unauthorized("Cannot authenticate: the key is not accepted")
        raise Unauthorized("Cannot authenticate: send 'Authorization: Bearer <key>' or sign")

    def _read_signature(self, scope: Scope, headers: Headers) -> tuple[Key, SignatureCheck]:
        timestamp = headers.get("x-callme-timestamp", "")
        nonce = headers.get("x-callme-nonce", "")
        signature = headers["x-callme-signature"]
        now = time.time()
        if not timestamp.isdigit() or abs(int(timestamp[:20]) - now) > CLOCK_SKEW_S:
            raise Unauthorized("Cannot verify: the timestamp is over two minutes off")
        if not 16 <= len(nonce) <= NONCE_MAX_CHARS or not signature.startswith(SIGNATURE_PREFIX):
            raise Unauthorized("Cannot verify: the nonce or the signature is malformed")
        key_id = headers.get("x-callme-key-id")
        keys = [k for k in self._keys if key_id is None or k.id == key_id]
        if not keys:
            raise Unauthorized("Cannot verify: there is no such key")
        path = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace")
        query = scope.get("query_string", b"").decode("ascii", "replace")
        head = "\n".join(
            [
                "v1",
                timestamp,
                nonce,
                scope["method"],
                f"{path.partition('?')[0]}?{query}" if query else path.partition("?")[0],
                headers.get("content-type", ""),
            ]
        )
        check = SignatureCheck(
            keys, head, signature.removeprefix(SIGNATURE_PREFIX), nonce, self._nonces
        )
        return keys[0], check


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """Verifies a signature once the body has been seen to its end."""

    keys: list[Key]
    head: str
    signature: str
    nonce: str
    nonces: NonceCache

    def __call__(self, receive: Receive) -> Receive:
        """`receive`, which raises Unauthorized instead of giving the last chunk of a body that
        was not signed, or of one that was seen before."""
        digest = hashlib.sha256()
        verified = False

        async def checked() -> Message:
            nonlocal verified
            message = await receive()
            if message["type"] == "http.request" and not verified:
                digest.update(message.get("body", b""))
                if not message.get("more_body", False):
                    self.verify(digest.hexdigest())
                    verified = True
            return message

        return checked

    def verify(self, body_sha256: str) -> None:
        """Raises Unauthorized."""
        signed = f"{self.head}\n{body_sha256}".encode()
        for key in self.keys:
            expected = hmac.new(key.secret.encode(), signed, hashlib.sha256).hexdigest()
            if hmac.compare_digest(expected.encode(), self.signature.encode()):
                # Claimed only now, so that nobody can burn another's nonce.
                if not self.nonces.claim(self.nonce, time.time()):
                    raise Unauthorized("Cannot verify: this request was seen before")
                return
        raise Unauthorized("Cannot verify: the signature does not match")


def require_this_machine(scope: Scope, headers: Mapping[str, str]) -> None:
    """Raises Forbidden unless the request came straight from a program on this machine.

    A page in this machine's browser is not one: its Origin, or after DNS rebinding its Host,
    names another site.
    """
    client = scope.get("client")
    direct = not any(h in headers for h in PROXY_HEADERS)
    if not (client and _is_loopback(client[0]) and direct):
        raise Forbidden("Cannot serve other machines: no key is configured (CALLME_KEYS)")
    host = urlsplit(f"//{headers.get('host', 'localhost')}").hostname or ""
    origin = headers.get("origin")
    origin_host = urlsplit(origin).hostname or "" if origin else "localhost"
    if not (_is_loopback(host) and _is_loopback(origin_host)):
        raise Forbidden("Cannot serve web pages of other sites: no key is configured")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
