"""A router for one command: with one package, a free port and a temporary state folder."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from router.cli.client import Target
from router.settings import Settings


class TemporaryError(Exception):
    """The router did not start. The message is for a person."""


@contextlib.contextmanager
def settings_of_one(package: Path, settings: Settings) -> Iterator[Settings]:
    """The settings for a router of this package alone, with a temporary state folder."""
    with tempfile.TemporaryDirectory(prefix="callme-") as temp:
        packages = Path(temp) / "packages"
        packages.mkdir()
        (packages / package.name).symlink_to(package)
        folders = {"packages_dir": packages, "state_dir": Path(temp) / "state"}
        yield settings.model_copy(update={**folders, "preload": ()})


@contextlib.asynccontextmanager
async def temporary_router(package: Path, settings: Settings) -> AsyncIterator[Target]:
    """A complete router for `package` alone. The router and its models are stopped at the end.

    `settings` are used except for the folders, the address and the keys. Raises TemporaryError when
    the router does not start.
    """
    from router.app import create_app  # noqa: PLC0415 - see serve.Server

    with settings_of_one(package, settings) as one:
        key = secrets.token_urlsafe(32)
        keys = {"keys": (), "admin_keys": (SecretStr(f"cli:{key}"),)}
        own = one.model_copy(update={"host": "127.0.0.1", **keys})
        config = uvicorn.Config(create_app(own), host=own.host, port=0, log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        try:
            yield Target(await _address(server, serving), key, own=True)
        finally:
            server.should_exit = True
            await serving


async def _address(server: uvicorn.Server, serving: asyncio.Task[None]) -> str:
    while not server.started:
        if serving.done():
            raise TemporaryError("Cannot start a router for this prediction")
        await asyncio.sleep(0.02)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"
