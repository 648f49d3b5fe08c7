"""A router for one command: with one package, a free port and a temporary state folder."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from router.app import create_app
from router.cli.client import Target
from router.settings import Settings


class TemporaryError(Exception):
    """The router did not start. The message is for a person."""


@contextlib.asynccontextmanager
async def temporary_router(package: Path, settings: Settings) -> AsyncIterator[Target]:
    """A complete router for `package` alone. The router and its models are stopped at the end.

    `settings` are used except for the folders, the address and the keys. Raises TemporaryError when
    the router does not start.
    """
    with tempfile.TemporaryDirectory(prefix="callme-") as temp:
        packages, key = Path(temp) / "packages", secrets.token_urlsafe(32)
        packages.mkdir()
        (packages / package.name).symlink_to(package)
        own = settings.model_copy(
            update={
                "packages_dir": packages,
                "state_dir": Path(temp) / "state",
                "host": "127.0.0.1",
                "keys": (),
                "admin_keys": (SecretStr(f"cli:{key}"),),
                "preload": (),
            }
        )
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
