"""Sends webhooks over HTTP, signed as https://www.standardwebhooks.com specifies, and never to
private addresses."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import AsyncResolver
from standardwebhooks import Webhook
from yarl import URL

from router.errors import InvalidInput
from router.outbound.public_http import (
    MakeResolver,
    PrivateAddressError,
    PublicHttp,
    judge_url,
)
from router.storage.private_files import require_private

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
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
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body.decode()),
        }
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        host = None
        try:
            judged = self._judge(url)
            host = judged.host
            async with self._http.session().post(
                judged, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.info("webhook not delivered", extra={"host": host, "reason": repr(error)})
            return 0

    def _judge(self, url: str) -> URL:
        return judge_url(url, allow_private=self._http.allow_private)
