"""Sends the box's address to the web app: to Supabase's secrets, by a command, or by a webhook."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import html
import ipaddress
import json
import os
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from standardwebhooks import Webhook

from router import __version__
from router.outbound.public_http import seconds_of
from router.outbound.resolver import system_connector

USER_AGENT = f"callme/{__version__}"
HTTP_LIMIT_S = 30.0
COMMAND_LIMIT_S = 120.0
SUPABASE_API = "https://api.supabase.com"
# After these another try cannot succeed; a person must change something.
HOPELESS = frozenset({400, 401, 402, 403, 404, 422})
SHOWN_CHARS = 200
# A shorter path contains no secret, and without it a message would be hard to read.
SECRET_MIN_CHARS = 8


class PublishError(Exception):
    """The address could not be published. The message is for a person. `hopeless`: another try
    cannot succeed before a person changes something. `retry_after_s`: the Retry-After of the other
    side, None without one."""

    def __init__(
        self, message: str, *, hopeless: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.hopeless = hopeless
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Address:
    """What callers need to reach the box. `models`: the models that it serves, each with the file
    that it needs, as `caption:image,translate`; "" when that is not known."""

    url: str
    key_id: str
    key: str = field(repr=False)
    models: str = ""

    def secrets(self) -> dict[str, str]:
        """The values under the names that the edge function uses (supabase/README.md)."""
        values = {
            "GPU_BACKEND_URL": self.url,
            "GPU_BACKEND_KEY": self.key,
            "GPU_BACKEND_KEY_ID": self.key_id,
        }
        return {**values, "GPU_BACKEND_MODELS": self.models} if self.models else values


class Publisher(Protocol):
    """A place to publish the address. `name` is for a person."""

    @property
    def name(self) -> str:
        """The name, such as "Supabase project abc"."""

    async def publish(self, address: Address) -> None:
        """Publish the address, in one try. Raises PublishError when that fails."""

    def preview(self, address: Address) -> str:
        """What `publish` would do, without the key."""


@dataclass(frozen=True, slots=True)
class SupabaseSecrets:
    """The edge function's secrets, set by Supabase's Management API. Functions read them at their
    next request, without a deployment."""

    project: str
    token: str = field(repr=False)
    api_url: str = SUPABASE_API
    # For the function that receives webhooks: both sides have it, whenever the box starts.
    webhook_secret: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The project."""
        return f"Supabase project {self.project}"

    async def publish(self, address: Address) -> None:
        """POST /v1/projects/{ref}/secrets. Raises PublishError when that fails."""
        values = address.secrets()
        if self.webhook_secret:
            values["CALLME_WEBHOOK_SECRET"] = self.webhook_secret
        body = [{"name": name, "value": value} for name, value in values.items()]
        headers = {"Authorization": f"Bearer {self.token}"}
        others = (self.token, self.webhook_secret)
        hide = functools.partial(_without_secrets, key=address.key, others=others)
        await _post(self._url(), orjson.dumps(body), headers, self.name, hide)

    def preview(self, address: Address) -> str:
        """The request."""
        return f"POST {self._url()} with {_masked(address)}"

    def _url(self) -> str:
        return f"{self.api_url}/v1/projects/{self.project}/secrets"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the operator, for any other platform: `wrangler secret put …`."""

    line: str
    cwd: Path
    env: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The command."""
        return f"command '{self.line}'"

    async def publish(self, address: Address) -> None:
        """Run it in a shell with the address in its environment. Raises PublishError when it fails
        or takes too long."""
        child = await asyncio.create_subprocess_shell(
            self.line,
            cwd=self.cwd,
            env={**self.env, **address.secrets()},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                output, _ = await child.communicate()
        except TimeoutError as error:
            raise PublishError(f"{self.name} took over {COMMAND_LIMIT_S:.0f} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        if child.returncode != 0:
            said = _without_secrets(output.decode(errors="replace").strip(), address.key)
            raise PublishError(
                f"{self.name} ended with code {child.returncode}: {said[-SHOWN_CHARS:]}"
            )

    def preview(self, address: Address) -> str:
        """The command, and the variables added to its environment."""
        return f"run '{self.line}' with {_masked(address)}"


@dataclass(frozen=True, slots=True)
class WebhookPublisher:
    """A POST of `{"url", "key", "key_id"}`, and `models` if they are known, signed with the box's
    webhook secret as https://www.standardwebhooks.com specifies."""

    url: str
    secret: str = field(repr=False)

    @property
    def name(self) -> str:
        """The receiver's host only, as the path may contain a secret."""
        return f"webhook to {urlsplit(self.url).hostname}"

    async def publish(self, address: Address) -> None:
        """POST it. Raises PublishError when that fails."""
        document = {"url": address.url, "key": address.key, "key_id": address.key_id}
        if address.models:
            document["models"] = address.models
        body = orjson.dumps(document)
        now, message_id = datetime.now(UTC), f"msg_{secrets.token_hex(12)}"
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(message_id, now, body.decode()),
        }
        parts = urlsplit(self.url)
        others = (self.secret, parts.path, parts.query)
        hide = functools.partial(_without_secrets, key=address.key, others=others)
        await _post(self.url, body, headers, self.name, hide)

    def preview(self, address: Address) -> str:
        """The request."""
        return f"POST to {urlsplit(self.url).hostname}: url={address.url}, key_id={address.key_id}"


@dataclass(frozen=True, slots=True)
class PublishSetup:
    """What publishers are made from. `cwd` and `env` are for commands."""

    cwd: Path
    env: Mapping[str, str] = field(repr=False)
    webhook_secret: str = field(repr=False)
    supabase_project: str | None = None
    supabase_token: str | None = field(default=None, repr=False)
    supabase_api_url: str = SUPABASE_API


def make_publisher(target: str, setup: PublishSetup) -> Publisher:
    """The publisher for `supabase`, `command:LINE` or `webhook:URL`. Raises ValueError, with a
    message for a person, when `target` is none of these or a setting is missing."""
    kind, _, rest = target.partition(":")
    if kind == "supabase" and not rest:
        if not setup.supabase_project or not setup.supabase_token:
            raise ValueError(
                "Cannot publish to Supabase: SUPABASE_PROJECT_ID and SUPABASE_ACCESS_TOKEN "
                "must be set"
            )
        return SupabaseSecrets(
            *(setup.supabase_project, setup.supabase_token, setup.supabase_api_url),
            webhook_secret=setup.webhook_secret,
        )
    if kind == "command" and rest.strip():
        return Command(rest.strip(), setup.cwd, setup.env)
    if kind == "webhook":
        parts = urlsplit(rest)
        if parts.hostname and (parts.scheme == "https" or _is_here(parts)):
            return WebhookPublisher(rest, setup.webhook_secret)
        raise ValueError("Cannot publish: a webhook must be an https URL, since it carries the key")
    raise ValueError(
        f"Cannot publish to '{target}': it must be supabase, command:LINE or webhook:URL"
    )


async def _post(
    url: str, body: bytes, headers: Mapping[str, str], name: str, hide: Callable[[str], str]
) -> None:
    """POST. `hide` removes secrets from a response before it is shown, as many servers repeat a
    request that they could not read. Raises PublishError when the status is not 2xx."""
    headers = {**headers, "Content-Type": "application/json", "User-Agent": USER_AGENT}
    timeout = aiohttp.ClientTimeout(total=HTTP_LIMIT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=system_connector()) as http,
            http.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            if 200 <= response.status < 300:
                return
            said = hide((await response.text(errors="replace")).strip())[:SHOWN_CHARS]
            status, retry_after = response.status, response.headers.get("Retry-After")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise PublishError(f"{name} cannot be reached: {type(error).__name__}") from error
    raise PublishError(
        f"{name} answered {status}: {said or 'nothing'}",
        hopeless=status in HOPELESS,
        retry_after_s=seconds_of(retry_after),
    )


def _without_secrets(text: str, key: str, others: Sequence[str] = ()) -> str:
    """`text` without the secrets, in every encoding in which a server may repeat them. Call it
    before the text is cut, as a part of a secret is not found."""
    longest_first = sorted((o for o in others if len(o) >= SECRET_MIN_CHARS), key=len)[::-1]
    for secret, shown in ((key, "<key>"), *((other, "<hidden>") for other in longest_first)):
        writings = {secret}
        for _ in range(2):  # a server may put the request as a string into its JSON
            writings |= {
                json.dumps(w, ensure_ascii=e)[1:-1] for w in writings for e in (False, True)
            }
        writings |= {writing.replace("/", "\\/") for writing in writings}
        writings |= {html.escape(secret), quote(secret), quote(secret, safe="")}
        for writing in sorted(writings, key=len, reverse=True):
            text = text.replace(writing, shown)
    return text


def _masked(address: Address) -> str:
    values = {**address.secrets(), "GPU_BACKEND_KEY": "<the key>"}
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _is_here(parts: object) -> bool:
    hostname = getattr(parts, "hostname", None) or ""
    if hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False
