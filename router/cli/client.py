"""A client of a running router, over HTTP like any other client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import aiohttp
import typer

from router.cli.common import base_url, fail, print_json
from router.keys.key import split_key
from router.keys.key_store import read_local_key
from router.models.tracebacks import with_location
from router.outbound.resolver import system_connector
from router.settings import Settings

# Reads have a time limit. A prediction has none here, as the router limits its time.
CONNECT_S = 5.0
LOOK_S = 30.0
START_ONE = "Start one with `callme serve`, or name a running one: --url http://HOST:PORT"

Url = Annotated[
    str | None,
    typer.Option(
        help="URL of the router; default: this machine's router, from its settings.",
        envvar="CALLME_URL",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The key to send; default: the local key of this machine's router.",
        envvar="CALLME_KEY",
    ),
]


@dataclass(frozen=True, slots=True)
class Target:
    """A router's URL and the key for it. `own`: it is this machine's, found by the settings."""

    url: str
    key: str | None
    own: bool


class UnreachableError(Exception):
    """No router answers at the URL."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not JSON."""
        return json.loads(self.body)


class RefusedError(Exception):
    """The router answered with an error. `code` and the message are the router's."""

    def __init__(self, answer: Answer) -> None:
        try:
            body = answer.json()
            if "detail" in body:  # Cog's API, of inputs that are wrong
                self.code, message = "invalid_input", "; ".join(p["msg"] for p in body["detail"])
            else:
                self.code, message = str(body["error"]["code"]), str(body["error"]["message"])
        except (ValueError, KeyError, TypeError):
            self.code, message = "unknown", f"it answered {answer.status}; it is no callme router"
        super().__init__(message)
        self.status = answer.status
        self.retry_after = answer.headers.get("Retry-After")
        self.prediction_id = answer.headers.get("X-Prediction-Id", "")


def find_router(settings: Settings, url: str | None, key: str | None) -> Target:
    """The router at `url`, else this machine's. Keys of this machine are sent only to the
    latter."""
    if url is not None:
        return Target(url.rstrip("/"), key, own=False)
    key = key or read_local_key(settings.state) or _configured_key(settings)
    return Target(base_url(settings), key, own=True)


def _configured_key(settings: Settings) -> str | None:
    """A key from the settings, an admin key if there is one."""
    configured = next(iter((*settings.admin_keys, *settings.keys)), None)
    return split_key(configured.get_secret_value())[2] if configured else None


class RouterClient:
    """An HTTP client of one router. Use it in an `async with` block."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        self._http = aiohttp.ClientSession(
            headers=headers, timeout=timeout, connector=system_connector()
        )

    async def __aenter__(self) -> RouterClient:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._http.close()

    async def get(self, path: str) -> Any:
        """The JSON at `path`. Raises UnreachableError when no router answers, and RefusedError when
        it answers with an error."""
        answer = await self.send("GET", path, limit_s=LOOK_S)
        return answer.json()

    async def is_router(self) -> bool:
        """Whether a router answers there within CONNECT_S."""
        try:
            answer = await self.send("GET", "/health", limit_s=CONNECT_S)
            return bool(answer.json() == {"status": "ok"})
        except (UnreachableError, RefusedError, ValueError):
            return False

    async def send(
        self, method: str, path: str, *, limit_s: float | None = None, **request: Any
    ) -> Answer:
        """The response, if its status is 2xx. Raises UnreachableError when no router answers, and
        RefusedError for any other status."""
        url = self.target.url + path
        try:
            async with self._http.request(
                method, url, timeout=_timeout(limit_s), allow_redirects=False, **request
            ) as response:
                answer = Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(f"Cannot reach a router at {self.target.url}") from error
        if not 200 <= answer.status < 300:
            raise RefusedError(answer)
        return answer


def fail_unreachable(error: UnreachableError) -> NoReturn:
    """Print that no router answers, and end with code 1."""
    fail(str(error), START_ONE)


def fail_refused(
    error: RefusedError, as_json: bool = False, location: str = "", hint: str = ""
) -> NoReturn:
    """Print the router's error, and end with code 1. With `as_json` it is printed to stdout, in the
    router's JSON form. `location`: the line of a package that failed; to try again is then no use.
    `hint`: what to do, if that is known."""
    if as_json:
        print_json({"error": {"code": error.code, "message": str(error)}})
        raise typer.Exit(1)
    if error.status in (401, 403):
        hint = "Give a key with --key or CALLME_KEY. `callme keys create NAME` makes one."
        if error.code == "forbidden":
            hint = "Give an admin key with --key or CALLME_KEY: `callme keys create NAME --admin`."
    elif error.retry_after and not hint and not location:
        hint = f"Try again in {error.retry_after} s"
    fail(with_location(str(error), location), hint)


def _timeout(limit_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_S)
