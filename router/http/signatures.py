"""Signed requests, as the edge function sends them: the key itself is never sent.

A signed request has `X-Callme-Timestamp`, `X-Callme-Nonce`, `X-Callme-Content-Sha256: <hex>`,
`X-Callme-Signature: v2=<hex>` and optionally `X-Callme-Key-Id`. The signature is HMAC-SHA256
with the key's verifier (`router.keys.key`) over these, joined by newlines: `v2`, timestamp,
nonce, method, path with query, Content-Type, hex SHA-256 of the body. All of it is in the head,
so the sender is known before one byte of the body is read.
tests/edge/signature_vectors.json has examples that both sides are tested against.
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

from router.errors import (
    MalformedRequest,
    PayloadTooLarge,
    RateLimited,
    RouterError,
    Unauthorized,
)
from router.keys.key import Key

CLOCK_SKEW_S = 120
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NONCE_MIN_CHARS, NONCE_MAX_CHARS = 16, 128
# Nonces kept for one key, within twice the clock skew: 416 requests a second for that time.
NONCES_KEPT = 100_000
VERSION = "v2"
SIGNATURE = re.compile(rf"{VERSION}=([0-9a-f]{{64}})")
SHA256 = re.compile(r"[0-9a-f]{64}")
# Limit for the wait for a whole body: BODY_BASE_S, and 1 s more for each BODY_MIN_BYTES_PER_S
# bytes. An attacker who copies a signed head and sends its body slowly must not hold one of the
# key's slots. Edge functions send from a data center, so they are fast enough.
BODY_BASE_S = 30.0
BODY_MIN_BYTES_PER_S = 100_000
# Pieces are joined to blocks, so that a body sent byte by byte is not kept as one message a byte.
BLOCK_BYTES = 64 << 10


class NonceCache:
    """Keeps the nonces of each key that were seen within the clock skew.

    Older requests are refused by their timestamp. Each key has `kept` slots of its own, so it can
    lock out only itself.
    """

    def __init__(self, kept: int = NONCES_KEPT) -> None:
        self._kept = kept
        self._seen: defaultdict[str, OrderedDict[str, float]] = defaultdict(OrderedDict)

    def check(self, key_id: str, nonce: str) -> None:
        """Check a nonce without claiming it. Raises Unauthorized when it has been used."""
        if nonce in self._seen[key_id]:
            raise Unauthorized("Cannot verify: this request was seen before")

    def claim(self, key_id: str, nonce: str, now: float) -> None:
        """Mark a nonce as used. `now` is Unix time in seconds.

        Raises Unauthorized when it has been used, and RateLimited when no slot is left for it.
        """
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
    """A request head that `key` has signed, with the hash that its body must have."""

    key: Key
    nonce: str
    body_sha256: str


class SignedBody:
    """The body of a signed request. It is not trusted before its end has been read and checked.

    `read_ahead` checks it before the application is called, which suits small bodies and handlers
    that act without reading. `receive` checks it with the last chunk, which suits a form that is
    spooled as it arrives. `drain` checks it before any response, in case a handler has not read
    to the end.
    """

    def __init__(self, receive: Receive, sha256: str, max_bytes: int) -> None:
        self._receive = receive
        self._sha256 = sha256
        self._left_bytes = max_bytes
        self._left_s = BODY_BASE_S
        self._digest = hashlib.sha256()
        self._ahead: deque[Message] = deque()
        self._ended = False
        self._refused: RouterError | None = None

    async def receive(self) -> Message:
        """Return the next message.

        Raises Unauthorized, instead of the last message, when the body is not the signed one.
        Otherwise it raises as `read_ahead` does.
        """
        return self._ahead.popleft() if self._ahead else await self._next()

    async def read_ahead(self) -> None:
        """Read and check the whole body now.

        Raises Unauthorized when it is not the signed one or ends early, PayloadTooLarge when it is
        too large, and MalformedRequest when it arrives too slowly.
        """
        block = bytearray()
        while not self._ended:
            block += (await self._next()).get("body", b"")
            if self._ended or len(block) >= BLOCK_BYTES:
                message = {"body": bytes(block), "more_body": not self._ended}
                self._ahead.append({"type": "http.request", **message})
                block = bytearray()

    async def drain(self) -> None:
        """Read, check and drop what the application left unread. Raises as `read_ahead` does."""
        while not self._ended:
            await self._next()

    async def _next(self) -> Message:
        if self._refused is not None:  # also when it is asked for again
            raise self._refused
        if self._ended:
            return await self._receive()
        try:
            return await self._checked()
        except RouterError as error:
            self._refused = error
            raise

    async def _checked(self) -> Message:
        message = await self._wait()
        if message["type"] != "http.request":
            self._ended = True
            raise Unauthorized("Cannot verify: the body ended early")
        chunk = message.get("body", b"")
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            self._ended = True
            raise PayloadTooLarge("Cannot read the body: it is too large")
        self._left_s += len(chunk) / BODY_MIN_BYTES_PER_S
        self._digest.update(chunk)
        if not message.get("more_body", False):
            self._ended = True
            if self._digest.hexdigest() != self._sha256:
                raise Unauthorized("Cannot verify: the body is not the one that was signed")
        return message

    async def _wait(self) -> Message:
        """Wait for the next message. The application's time between two reads does not count."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left_s):
                message = await self._receive()
        except TimeoutError as error:
            self._ended = True
            raise MalformedRequest("Cannot read the body: it comes too slowly") from error
        self._left_s -= loop.time() - began
        return message


def read_signature(scope: Scope, headers: Headers, accepted: Sequence[Key]) -> Signed:
    """Return the signed head, after a check of its signature.

    A malformed head is refused before anything is computed. Raises Unauthorized when the head is
    malformed, too old, or not signed by an accepted key.
    """
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
    """Return the path and the query exactly as received."""
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path
