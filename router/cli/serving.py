"""`serve` for a service, `up` for a person who wants to see it work."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from router.api.context import Context
from router.app import create_app
from router.cli.common import base_url, console, read_settings
from router.domain.errors import RouterError
from router.domain.package import Package
from router.logs import configure_logging
from router.scheduling.model import Phase
from router.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.", min=1, max=65535)]


def add_commands(app: typer.Typer) -> None:
    """`serve` and `up`."""
    app.command()(serve)
    app.command()(up)


def serve(host: Host = None, port: Port = None) -> None:
    """Serve, with logs on stderr. Models start when they are first asked for."""
    configure_logging()
    settings = read_settings(host=host, port=port)
    server = _server(settings)
    _run(server.serve())


def up(host: Host = None, port: Port = None) -> None:
    """Serve, load every model that fits, and show a line to try for each."""
    configure_logging(logging.WARNING)
    settings = read_settings(host=host, port=port)
    if not settings.preload:
        settings = settings.model_copy(update={"preload": ("all",)})
    server = _server(settings)
    _run(_serve_and_show(server, settings))


def _server(settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(settings), host=settings.host, port=settings.port, log_config=None
    )
    return uvicorn.Server(config)


def _run(work: Coroutine[None, None, None]) -> None:
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        # uvicorn raises the signal again once everything has been stopped.
        console.print("Stopped. Nothing is left running.")


async def _serve_and_show(server: uvicorn.Server, settings: Settings) -> None:
    serving = asyncio.create_task(server.serve())
    showing = asyncio.create_task(_show(server, settings))
    await serving
    showing.cancel()


async def _show(server: uvicorn.Server, settings: Settings) -> None:
    while not server.started:
        await asyncio.sleep(0.05)
    application = server.config.app
    assert isinstance(application, FastAPI)  # noqa: S101 - made in _server
    context: Context = application.state.context
    console.print(f"\nServing {settings.packages_dir} on [bold]{base_url(settings)}[/bold]\n")
    for name in context.packages:
        await _show_model(context, name)
    console.print("\nTry, in another terminal:\n")
    for package in context.packages.values():
        if line := curl_line(package, base_url(settings), Path.cwd()):
            console.print(f"  {line}", soft_wrap=True)
    url = base_url(settings)
    console.print(f"\nAPI: {url}/docs   State: {url}/status   Stop: Ctrl-C\n", soft_wrap=True)


async def _show_model(context: Context, name: str) -> None:
    model = context.loop.scheduler.models[name]
    with console.status(f"{name}: reading what it takes …") as spinner:
        try:
            await context.spec(context.packages[name])
        except RouterError as error:
            console.print(f"  [red]✗[/red] {name}  {error.message}")
            return
        spinner.update(f"{name}: loading …")
        while model.phase is not Phase.READY and (model.wanted or model.phase is Phase.STARTING):
            await asyncio.sleep(0.1)
    if model.phase is Phase.READY:
        mib = (model.footprint_bytes or 0) >> 20
        console.print(f"  [green]✓[/green] {name}  ready in {model.load_s:.1f} s, {mib} MiB")
    elif model.failure_reason:
        console.print(f"  [red]✗[/red] {name}  {model.failure_reason}")
    else:
        console.print(f"  [yellow]·[/yellow] {name}  starts when it is asked for: memory is full")


def curl_line(package: Package, url: str, here: Path) -> str | None:
    """A command that works as it stands from `here`, from the package's example.json."""
    if not package.example:
        return None
    parts = ["curl", "-sS", f"{url}/{package.name}"]
    for name, value in package.example.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text.startswith("@"):
            path = package.folder / text[1:]
            text = f"@{path.relative_to(here) if path.is_relative_to(here) else path}"
        parts += ["-F", shlex.quote(f"{name}={text}")]
    return " ".join(parts)
