"""Signed requests, the edge function's way: the key never travels.

A signed request carries `X-Callme-Timestamp`, `X-Callme-Nonce`, `X-Callme-Signature: v2=<hex>`
and, if it has one, `X-Callme-Key-Id`. The signature is HMAC-SHA256 with the key's verifier
(`router.domain.keys`) over these, joined by newlines: `v2`, timestamp, nonce, method, path with
query, Content-Type, hex SHA-256 of the body. tests/edge/signature_vectors.json holds examples that
both sides are tested against.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from router.domain.errors import PayloadTooLarge, Unauthorized
from router.domain.keys import Key

CLOCK_SKEW_S = 120
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NONCE_MAX_CHARS = 128
NONCES_KEPT = 100_000
VERSION = "v2"
SIGNATURE_PREFIX = f"{VERSION}="


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


@dataclass(frozen=True, slots=True)
class Signature:
    """A request's claim; `head` is all that is signed but the body's hash."""

    keys: Sequence[Key]
    head: str
    hex_digest: str
    nonce: str
    nonces: NonceCache

    def verify(self, body_sha256: str) -> Key:
        """The key that signed it. Raises Unauthorized."""
        signed = f"{self.head}\n{body_sha256}".encode("latin-1")
        for key in self.keys:
            expected = hmac.new(key.verifier, signed, hashlib.sha256).hexdigest()
            if hmac.compare_digest(expected.encode(), self.hex_digest.encode()):
                # Claimed only now, so that nobody can burn another's nonce.
                if not self.nonces.claim(self.nonce, time.time()):
                    raise Unauthorized("Cannot verify: this request was seen before")
                return key
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
        on_verified: Callable[[Key], Awaitable[None]],
        on_settled: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._on_verified = on_verified
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
        """Read and verify the whole body now. Raises Unauthorized, PayloadTooLarge, and what
        `on_verified` raises: the request is then refused though it is the key's own."""
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
            await self._on_verified(self._signature.verify(self._digest.hexdigest()))
        return message


def read_signature(
    scope: Scope, headers: Headers, accepted: Sequence[Key], nonces: NonceCache
) -> Signature:
    """The claim of a request's headers, still to be verified. Raises Unauthorized."""
    timestamp = headers.get("x-callme-timestamp", "")
    nonce = headers.get("x-callme-nonce", "")
    signature = headers["x-callme-signature"]
    now = time.time()
    if not TIMESTAMP.fullmatch(timestamp) or abs(int(timestamp) - now) > CLOCK_SKEW_S:
        raise Unauthorized("Cannot verify: the timestamp is over two minutes off")
    if not 16 <= len(nonce) <= NONCE_MAX_CHARS or not signature.startswith(SIGNATURE_PREFIX):
        raise Unauthorized("Cannot verify: the nonce or the signature is malformed")
    key_id = headers.get("x-callme-key-id")
    keys = [k for k in accepted if not k.local and key_id in (None, k.id)]
    if not keys:
        raise Unauthorized("Cannot verify: there is no such key")
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query = scope.get("query_string", b"").decode("latin-1")
    target = f"{path}?{query}" if query else path
    content_type = headers.get("content-type", "")
    head = "\n".join([VERSION, timestamp, nonce, scope["method"], target, content_type])
    return Signature(keys, head, signature.removeprefix(SIGNATURE_PREFIX), nonce, nonces)
