"""Signed requests, the edge function's way: the key never travels.

A signed request carries `X-Callme-Timestamp`, `X-Callme-Nonce`, `X-Callme-Content-Sha256: <hex>`,
`X-Callme-Signature: v2=<hex>` and, if it has one, `X-Callme-Key-Id`. The signature is HMAC-SHA256
with the key's verifier (`router.keys.key`) over these, joined by newlines: `v2`, timestamp,
nonce, method, path with query, Content-Type, hex SHA-256 of the body. All of it is in the head, so
whose request it is, is known before one byte of its body is read.
tests/edge/signature_vectors.json holds examples that both sides are tested against.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from router.errors import MalformedRequest, PayloadTooLarge, RateLimited, Unauthorized
from router.keys.key import Key

CLOCK_SKEW_S = 120
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NONCE_MIN_CHARS, NONCE_MAX_CHARS = 16, 128
# Of one key, within twice the clock skew: 416 requests a second for as long as that.
NONCES_KEPT = 100_000
VERSION = "v2"
SIGNATURE = re.compile(rf"{VERSION}=([0-9a-f]{{64}})")
SHA256 = re.compile(r"[0-9a-f]{64}")
# How long a body may be waited for in all: a head that was overheard, sent with a trickle for a
# body, must not hold one of its key's places. Functions send from a data center.
BODY_BASE_S = 30.0
BODY_MIN_BYTES_PER_S = 100_000
# A body that comes byte by byte must not be kept as a message for each of them.
BLOCK_BYTES = 64 << 10


class NonceCache:
    """The nonces of each key seen within the clock skew; older ones are refused by their
    timestamp. A key has its own `kept` places, so that it can shut out only itself."""

    def __init__(self, kept: int = NONCES_KEPT) -> None:
        self._kept = kept
        self._seen: defaultdict[str, OrderedDict[str, float]] = defaultdict(OrderedDict)

    def check(self, key_id: str, nonce: str) -> None:
        """Raises Unauthorized when it has been used; claims nothing."""
        if nonce in self._seen[key_id]:
            raise Unauthorized("Cannot verify: this request was seen before")

    def claim(self, key_id: str, nonce: str, now: float) -> None:
        """Use it. `now`: Unix time, s. Raises Unauthorized when it has been used, and RateLimited
        when there is no place to remember it."""
        seen = self._seen[key_id]
        while seen and next(iter(seen.values())) < now - 2 * CLOCK_SKEW_S:
            seen.popitem(last=False)
        self.check(key_id, nonce)
        if len(seen) >= self._kept:
            oldest = next(iter(seen.values()))
            raise RateLimited(
                f"Cannot serve more: this key has signed {self._kept} requests "
                f"in {2 * CLOCK_SKEW_S} s",
                retry_after_s=max(oldest + 2 * CLOCK_SKEW_S - now, 1.0),
            )
        seen[nonce] = now


@dataclass(frozen=True, slots=True)
class Signed:
    """A request's head that `key` has signed, with the hash that its body must have."""

    key: Key
    nonce: str
    body_sha256: str


class SignedBody:
    """A body that is not believed before its end has been seen.

    `read_ahead` checks it before the application is called: right for everything small, and for
    every handler that acts without reading. `receive` checks it with the last chunk: right for
    a form that is spooled as it comes. `drain` checks it before any answer, should a handler
    not have read to the end.
    """

    def __init__(self, receive: Receive, sha256: str, max_bytes: int) -> None:
        self._receive = receive
        self._sha256 = sha256
        self._left_bytes = max_bytes
        self._left_s = BODY_BASE_S
        self._digest = hashlib.sha256()
        self._ahead: deque[Message] = deque()
        self._settled = False

    async def receive(self) -> Message:
        """The next message; raises Unauthorized in place of the last of a body not signed."""
        return self._ahead.popleft() if self._ahead else await self._next()

    async def read_ahead(self) -> None:
        """Read and check the whole body now. Raises Unauthorized, PayloadTooLarge, and
        MalformedRequest when it comes too slowly."""
        block = bytearray()
        while not self._settled:
            block += (await self._next()).get("body", b"")
            if self._settled or len(block) >= BLOCK_BYTES:
                message = {"body": bytes(block), "more_body": not self._settled}
                self._ahead.append({"type": "http.request", **message})
                block = bytearray()

    async def drain(self) -> None:
        """Check what the application left unread, and forget it. Raises as `read_ahead`."""
        while not self._settled:
            await self._next()

    async def _next(self) -> Message:
        if self._settled:
            return await self._receive()
        message = await self._wait()
        if message["type"] != "http.request":
            self._settled = True
            raise Unauthorized("Cannot verify: the body ended early")
        chunk = message.get("body", b"")
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            self._settled = True
            raise PayloadTooLarge("Cannot read the body: it is too large")
        self._left_s += len(chunk) / BODY_MIN_BYTES_PER_S
        self._digest.update(chunk)
        if not message.get("more_body", False):
            self._settled = True
            if self._digest.hexdigest() != self._sha256:
                raise Unauthorized("Cannot verify: the body is not the one that was signed")
        return message

    async def _wait(self) -> Message:
        """What the application does between two reads does not count."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left_s):
                message = await self._receive()
        except TimeoutError as error:
            self._settled = True
            raise MalformedRequest("Cannot read the body: it comes too slowly") from error
        self._left_s -= loop.time() - began
        return message


def read_signature(scope: Scope, headers: Headers, accepted: Sequence[Key]) -> Signed:
    """Whose request this is, by its head alone; what is malformed is refused before
    anything is computed. Raises Unauthorized."""
    timestamp = headers.get("x-callme-timestamp", "")
    if not TIMESTAMP.fullmatch(timestamp) or abs(int(timestamp) - time.time()) > CLOCK_SKEW_S:
        raise Unauthorized("Cannot verify: the timestamp is over two minutes off")
    nonce = headers.get("x-callme-nonce", "")
    signature = SIGNATURE.fullmatch(headers["x-callme-signature"])
    if not NONCE_MIN_CHARS <= len(nonce) <= NONCE_MAX_CHARS or signature is None:
        raise Unauthorized("Cannot verify: the nonce or the signature is malformed")
    body_sha256 = headers.get("x-callme-content-sha256", "")
    if not SHA256.fullmatch(body_sha256):
        raise Unauthorized(
            "Cannot verify: X-Callme-Content-Sha256 must be the body's SHA-256 in hex "
            "(deploy the edge function again)"
        )
    key_id = headers.get("x-callme-key-id")
    keys = [k for k in accepted if not k.local and key_id in (None, k.id)]
    if not keys:
        raise Unauthorized("Cannot verify: there is no such key")
    content_type = headers.get("content-type", "")
    head = [VERSION, timestamp, nonce, scope["method"], _target(scope), content_type, body_sha256]
    signed = "\n".join(head).encode("latin-1")
    for key in keys:
        expected = hmac.new(key.verifier, signed, hashlib.sha256).hexdigest()
        if hmac.compare_digest(expected, signature[1]):
            return Signed(key, nonce, body_sha256)
    raise Unauthorized("Cannot verify: the signature does not match")


def _target(scope: Scope) -> str:
    """Path and query as they came."""
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path
