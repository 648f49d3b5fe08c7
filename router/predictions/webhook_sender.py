"""Sends webhooks over HTTP, signed as https://www.standardwebhooks.com specifies, and never to
private addresses."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import aiohttp
from aiohttp import AsyncResolver
from standardwebhooks import Webhook
from yarl import URL

from router.errors import InvalidInput
from router.media_types import ANY_TYPE, MEDIA_TYPE
from router.outbound.public_http import (
    MakeResolver,
    PrivateAddressError,
    PublicHttp,
    judge_url,
)
from router.storage.private_files import require_private

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
# Limit for a receiver's answer: it may have a URL of up to a kilobyte for each of hundreds of
# files.
ANSWER_BYTES = 1 << 20
# How long a file may take: this, and more by its size.
UPLOAD_FIRST_S = 30.0
UPLOAD_BYTES_PER_S = 128 << 10
SECRET_BYTES = 32
MIN_SECRET_BYTES = 24  # the minimum of Standard Webhooks
WEBHOOK_FILE = "webhook_secret"
SECRET_PREFIX = "whsec_"  # noqa: S105 - what every such secret begins with
MAX_URL_CHARS = 2048


def load_secret(path: Path) -> str:
    """The secret of this state folder, as `whsec_<base64>`; a new one is made when there is none.
    Raises NotPrivateError when another user could have written the file."""
    require_private(path)
    if path.exists():
        if _is_secret(kept := _text_of(path)):
            return kept
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        path.rename(aside)
        log.error(
            "%s in the state folder was damaged: it is kept as %s, and a new secret is made. "
            "Give receivers of webhooks the new secret: GET /v1/webhooks/default/secret",
            *(path.name, aside.name),
        )
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secret}\n")
    part.replace(path)
    return secret


def _text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _is_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        return False
    return text.startswith(SECRET_PREFIX) and len(key) >= MIN_SECRET_BYTES


class HttpWebhookSender:
    """Implements `router.predictions.webhooks.WebhookSender`. Call `close` at the end."""

    def __init__(
        self, secret: str, *, allow_private: bool, make_resolver: MakeResolver = AsyncResolver
    ) -> None:
        self._webhook = Webhook(secret)
        self._http = PublicHttp(allow_private=allow_private, make_resolver=make_resolver)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    def check(self, url: str) -> None:
        """Raises InvalidInput when `url` is too long, is no http(s) URL or names a private
        address."""
        why = ""
        if len(url) > MAX_URL_CHARS:
            why = f"must have at most {MAX_URL_CHARS} characters"
        else:
            try:
                self._judge(url)
            except ValueError:
                why = "must be an http(s) URL"
            except PrivateAddressError:
                why = "must be on the public internet"
        if why:
            problems = [{"body": "webhook", "message": why}]
            raise InvalidInput(f"Cannot use 'webhook': {why}", details={"problems": problems})

    async def send(self, url: str, message_id: str, body: bytes) -> int:
        """POST it. Returns the response's status, 0 when there is none. Follows no redirect."""
        headers = self._signed(message_id, body)
        return (await self._request("POST", url, body, headers, TIMEOUT_S))[0]

    async def ask(self, url: str, message_id: str, body: bytes) -> tuple[int, bytes]:
        """POST it. Returns the response's status, 0 when there is none, and its body, empty when
        it is over ANSWER_BYTES or does not come whole. Follows no redirect."""
        headers = self._signed(message_id, body)
        return await self._request("POST", url, body, headers, TIMEOUT_S, reads=True)

    async def put(self, url: str, path: Path, media_type: str) -> int:
        """PUT the file. Returns the response's status, 0 when there is none. Raises
        FileNotFoundError when there is no such file."""
        size = (await asyncio.to_thread(path.stat)).st_size
        kind = media_type if MEDIA_TYPE.fullmatch(media_type) else ANY_TYPE
        headers = {"Content-Type": kind, "Content-Length": str(size), "x-upsert": "true"}
        limit_s = UPLOAD_FIRST_S + size / UPLOAD_BYTES_PER_S
        with await asyncio.to_thread(path.open, "rb") as file:
            return (await self._request("PUT", url, file, headers, limit_s))[0]

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        now = datetime.now(UTC)
        return {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body.decode()),
        }

    async def _request(
        self,
        method: str,
        url: str,
        body: bytes | IO[bytes],
        headers: dict[str, str],
        limit_s: float,
        *,
        reads: bool = False,
    ) -> tuple[int, bytes]:
        host = None
        try:
            judged = self._judge(url)
            host = judged.host
            async with self._http.session().request(
                method,
                judged,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(limit_s),
                allow_redirects=False,
            ) as response:
                return response.status, await _short_body(response) if reads else b""
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.info("webhook not delivered", extra={"host": host, "reason": repr(error)})
            return 0, b""

    def _judge(self, url: str) -> URL:
        return judge_url(url, allow_private=self._http.allow_private)


async def _short_body(response: aiohttp.ClientResponse) -> bytes:
    """The body; empty when it is over ANSWER_BYTES or breaks off. The status counts in any case."""
    try:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > ANSWER_BYTES:
                return b""
        return bytes(body)
    except (aiohttp.ClientError, OSError):
        return b""
