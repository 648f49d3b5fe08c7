"""`serve` for a service, `up` for a person who wants to see it work."""

from __future__ import annotations

import asyncio
import logging
import shlex
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from router.api.context import Context
from router.app import create_app
from router.cli.common import base_url, console, err_console, fail, read_settings
from router.cli.public import prepare, teller
from router.domain.errors import RouterError
from router.domain.package import Package
from router.exposure import Exposed, Exposure
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
    server = Server(settings)
    _run(server.serve())


def up(
    host: Host = None,
    port: Port = None,
    *,
    public: Annotated[
        bool, typer.Option("--public", help="Open a Cloudflare tunnel and publish its address.")
    ] = False,
    publish: Annotated[
        list[str] | None,
        typer.Option(help="Where to: supabase, command:LINE or webhook:URL; again for several."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --public: say what would be published.")
    ] = False,
) -> None:
    """Serve, load every model that fits, and show a line to try for each."""
    configure_logging(logging.WARNING)
    settings = read_settings(host=host, port=port)
    if not settings.preload:
        settings = settings.model_copy(update={"preload": ("all",)})
    if (publish or dry_run) and not public:
        fail("Cannot publish without a tunnel: add --public.", code=2)
    exposed = None
    if public:
        settings, exposed = prepare(settings, publish or (), dry_run)
    server = Server(settings)
    _run(_serve_and_show(server, settings, exposed))


class Server(uvicorn.Server):
    """uvicorn's, with tasks beside it: the first that fails ends it, and all end with it."""

    def __init__(self, settings: Settings) -> None:
        config = uvicorn.Config(
            create_app(settings), host=settings.host, port=settings.port, log_config=None
        )
        super().__init__(config)
        self._beside: list[asyncio.Task[None]] = []

    def start_beside(self, work: Coroutine[None, None, None]) -> None:
        """Run it until the server has stopped."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._end_when_failed)
        self._beside.append(task)

    def _end_when_failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            err_console.print(f"[red]{type(error).__name__}: {error}[/red]")
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Here and not after `serve`: at its end uvicorn gives itself the signal once more, and
        a SIGTERM leaves no time for anything."""
        await super().shutdown(sockets)
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)

    async def wait_started(self) -> None:
        """Until it listens."""
        while not self.started:
            await asyncio.sleep(0.05)


def _run(work: Coroutine[None, None, None]) -> None:
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        # uvicorn raises the signal again once everything has been stopped.
        console.print("Stopped. Nothing is left running.")


async def _serve_and_show(server: Server, settings: Settings, exposed: Exposed | None) -> None:
    server.start_beside(_show(server, settings))
    if exposed is not None:
        server.start_beside(_expose(server, exposed))
    await server.serve()


async def _expose(server: Server, exposed: Exposed) -> None:
    await server.wait_started()
    await Exposure(exposed, teller(exposed)).run()


async def _show(server: Server, settings: Settings) -> None:
    await server.wait_started()
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
