"""`callme serve`, for a service, and `callme up`, for a person at a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shlex
import socket
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer
import uvicorn
from rich.markup import escape

from router.cli.client import Target, find_router
from router.cli.common import (
    base_url,
    console,
    err_console,
    fail,
    forget_secrets,
    import_hint,
    read_settings,
)
from router.cli.deploy import package_folder
from router.cli.ephemeral import settings_of_one
from router.cli.install import install_needed, install_one
from router.cli.progress import shown_progress
from router.cli.public import models_of, prepare, teller
from router.cli.reload import restart_changed
from router.cli.serve_one import PORT, CogAtRoot
from router.errors import RouterError
from router.keys.key_store import LOCAL_NAME, KeyFile, KeyFileError
from router.logs import StartFailureFilter, configure_logging
from router.models.catalog import Package
from router.models.tracebacks import with_location
from router.scheduling.snapshot import ModelSnapshot, Phase
from router.server_limits import tune_allocator
from router.settings import Settings
from router.tunnel.announce import Exposed, Exposure

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from router.http.context import Context

NO_KEY_HINT = (
    "No key is needed: programs of this machine are served, and so is everything that reaches\n"
    "this port like one of them: ssh -R, socat, a proxy that adds no header. Before you forward\n"
    "the port, make a key: callme keys create web\n"
)

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Packages = Annotated[
    Path | None,
    typer.Option(
        help="The folder with the packages; default: the current one if it contains any.",
        exists=True,
        file_okay=False,
    ),
]
Port = Annotated[
    int | None, typer.Option("--port", "-p", help="Port to listen on.", min=1, max=65535)
]


def add_commands(app: typer.Typer) -> None:
    """Add `serve` and `up`."""
    app.command()(serve)
    app.command()(up)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(help="Only this model, with Cog's API on port 8393, as `cog serve`."),
    ] = None,
    *,
    packages: Packages = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Serve, with logs on stderr. A model starts with its first prediction."""
    tune_allocator()
    configure_logging()
    if model is not None:
        _serve_one(package_folder(model), read_settings(packages, host=host, port=port or PORT))
        return
    settings = read_settings(packages, host=host, port=port)
    forget_secrets()
    require_free_port(settings.host, settings.port)
    server = Server(settings)
    _run(server, server.serve())


def _serve_one(package: Path, settings: Settings) -> None:
    require_free_port(settings.host, settings.port)
    forget_secrets()
    with settings_of_one(package, settings) as one:
        server = Server(one.model_copy(update={"preload": ("all",)}), only=package.name)
        err_console.print(f"Serving {package.name} at {base_url(settings)}/predictions")
        _run(server, server.serve())


def up(
    packages: Packages = None,
    host: Host = None,
    port: Port = None,
    *,
    public: Annotated[
        bool, typer.Option("--public", help="Open a Cloudflare tunnel and publish its address.")
    ] = False,
    publish: Annotated[
        list[str] | None,
        typer.Option(help="supabase, command:LINE or webhook:URL; may be repeated."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart a model when one of its files changes.")
    ] = False,
    install: Annotated[
        bool, typer.Option(help="First install what packages lack, as `callme install` does.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --public: show what would be published.")
    ] = False,
) -> None:
    """Serve, load every model that fits, and print a command to try for each."""
    tune_allocator()
    configure_logging(logging.WARNING)
    settings = read_settings(packages, host=host, port=port)
    if not settings.preload:
        settings = settings.model_copy(update={"preload": ("all",)})
    if (publish or dry_run) and not public:
        fail("Cannot publish without a tunnel: add --public.", code=2)
    exposed = None
    require_free_port(settings.host, settings.port)
    if public:
        settings, exposed = prepare(settings, publish or (), dry_run)
    forget_secrets()
    if install:
        install_needed(settings)
    server = Server(settings)
    work = _serve_and_show(server, settings, exposed, reload=reload, install=install)
    _run(server, work)


class Server(uvicorn.Server):
    """uvicorn's server with background tasks. It stops when a task fails, and all tasks end with
    it. With `only`, the paths of a Cog server lead to that model."""

    def __init__(self, settings: Settings, only: str = "") -> None:
        # Here and not above: it takes half of the time in which a command starts.
        from router.app import create_app  # noqa: PLC0415

        self.application = create_app(settings)
        app: ASGIApp = CogAtRoot(self.application, only) if only else self.application
        config = uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None)
        super().__init__(config)
        self._beside: list[asyncio.Task[None]] = []

    def start_beside(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` in a task until the server has stopped."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._end_when_failed)
        self._beside.append(task)

    def _end_when_failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            err_console.print(f"[red]{type(error).__name__}: {escape(str(error))}[/red]")
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, and end the tasks. This is not done after `serve`: at its end uvicorn raises the
        signal again, and a SIGTERM then ends the process at once."""
        await super().shutdown(sockets)
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)

    async def wait_started(self) -> None:
        """Wait until the server listens."""
        while not self.started:
            await asyncio.sleep(0.05)


def require_free_port(host: str, port: int) -> None:
    """End the command when the port is taken, with the name of the program that has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                fail(f"Cannot listen on {host}:{port}: {error.strerror}", "Set another --host.")
            fail(
                f"Cannot listen on {host}:{port}: {_listener(port)} uses it",
                f"Stop that program, or take another port: --port {port + 1}",
            )


def _listener(port: int) -> str:
    """The program that listens on the port. Those of other users cannot be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                command = shlex.join(process.cmdline())[:60]
                return f"'{command}' (pid {process.pid})"
    return "another program"


def _run(server: Server, work: Coroutine[None, None, None]) -> None:
    # On the same event loop as `uvicorn api:app`: uvloop.
    loops = asyncio.Runner(loop_factory=server.config.get_loop_factory())
    # In most cases uvicorn raises the signal again after everything has stopped.
    with contextlib.suppress(KeyboardInterrupt), loops as runner:
        runner.run(work)
    console.print("Stopped. Nothing is left running.")


async def _serve_and_show(
    server: Server, settings: Settings, exposed: Exposed | None, *, reload: bool, install: bool
) -> None:
    failures = StartFailureFilter()
    failures.hide()
    server.start_beside(_show(server, settings, failures))
    if reload:
        server.start_beside(_reload(server, settings, failures, install=install))
    if exposed is not None:
        server.start_beside(_expose(server, exposed))
    await server.serve()


async def _reload(
    server: Server, settings: Settings, failures: StartFailureFilter, *, install: bool
) -> None:
    await server.wait_started()
    context = _context(server)
    target = find_router(settings, None, None)

    async def show(name: str) -> None:
        await _show_model(context, target, name)

    async def restart(name: str) -> None:
        if install:
            await asyncio.to_thread(install_one, context.packages[name].folder, named=False)
        await context.model_commands.restart(name)

    local = {n: p.folder for n, p in context.packages.items() if context.model_commands.is_local(n)}
    await restart_changed(local, restart, show, failures)


def _context(server: Server) -> Context:
    context: Context = server.application.state.context
    return context


async def _expose(server: Server, exposed: Exposed) -> None:
    await server.wait_started()
    exposed = replace(exposed, models=partial(models_of, _context(server)))
    await Exposure(exposed, teller(exposed)).run()


async def _show(server: Server, settings: Settings, failures: StartFailureFilter) -> None:
    await server.wait_started()
    context = _context(server)
    console.print(f"\nServing {settings.packages_dir} on [bold]{base_url(settings)}[/bold]\n")
    needs_key = _asks_for_a_key(settings)
    key_file = settings.state / LOCAL_NAME if needs_key else None
    target = find_router(settings, None, None)
    for name in context.packages:
        await _show_model(context, target, name)
    failures.show()
    for name, reason in context.left_out.items():
        console.print(f"  [red]✗[/red] {name}  not served: {escape(reason)}", soft_wrap=True)
    console.print("\nTry in another terminal:\n")
    here = Path.cwd()
    for name in context.models:
        package = context.packages[name]
        line = curl_line(package, base_url(settings), here, key_file)
        if line and gives_files(context.schemas.openapi.get(name, {})):
            line += f" | {_shown(Path(sys.executable).parent / 'callme', here)} save"
        if line:
            console.print(f"  {line}", soft_wrap=True, markup=False)
    url = base_url(settings)
    console.print(f"\nPage: {url}/   API: {url}/docs   Stop: Ctrl-C\n", soft_wrap=True)
    if not needs_key:
        console.print(NO_KEY_HINT, soft_wrap=True, markup=False)


def _asks_for_a_key(settings: Settings) -> bool:
    with contextlib.suppress(KeyFileError):
        closed = KeyFile(settings.state).is_closed()
        return bool(settings.keys or settings.admin_keys or closed)
    return True


async def _show_model(context: Context, target: Target, name: str) -> None:
    async with shown_progress(target, name):
        try:
            await context.input_schema(context.packages[name])
        except RouterError as error:
            unread = context.schemas.unreadable(name)
            reason = with_location(error.message, unread.location if unread else "")
            _show_failure(name, reason)
            return
        model = context.loop.snapshot().models[name]
        while _is_coming(model):
            await asyncio.sleep(0.1)
            model = context.loop.snapshot().models[name]
    if model.phase is Phase.READY:
        mib = (model.footprint_bytes or 0) >> 20
        console.print(f"  [green]✓[/green] {name}  ready in {model.load_s:.1f} s, {mib} MiB")
    elif model.failure_reason:
        _show_failure(name, with_location(model.failure_reason, model.failure_location))
    else:
        console.print(
            f"  [yellow]·[/yellow] {name}  starts with its first prediction: memory is full"
        )


def _is_coming(m: ModelSnapshot) -> bool:
    """Whether it may become ready without a request."""
    if m.phase is Phase.READY:
        return m.restarting
    return m.wanted or m.restarting or m.phase is Phase.STARTING


def _show_failure(name: str, reason: str) -> None:
    console.print(f"  [red]✗[/red] {name}  {escape(reason)}", soft_wrap=True)
    if hint := import_hint(reason, name):
        console.print(f"      {hint}", soft_wrap=True, markup=False)
    console.print(f"      more: callme logs {name}", soft_wrap=True, markup=False)


def curl_line(package: Package, url: str, here: Path, key_file: Path | None = None) -> str | None:
    """A command from the package's example.json that works unchanged in the folder `here`; with the
    key in `key_file`. None when there is no example."""
    if not package.example:
        return None
    parts = ["curl", "-sS", f"{url}/{package.name}"]
    if key_file is not None:
        parts += ["-H", f'"Authorization: Bearer $(cat {shlex.quote(_shown(key_file, here))})"']
    for name, value in package.example.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text.startswith("@"):
            text = f"@{_shown(package.folder / text[1:], here)}"
        parts += ["-F", shlex.quote(f"{name}={text}")]
    return " ".join(parts)


def gives_files(schema: Mapping[str, Any]) -> bool:
    """Whether every output of the model contains a file, which is long base64 in the JSON."""
    output = schema.get("components", {}).get("schemas", {}).get("Output", {})
    fields = output.get("properties", {})
    always = [output, *(fields[name] for name in output.get("required", ()) if name in fields)]
    return any("uri" in (f.get("format"), f.get("items", {}).get("format")) for f in always)


def _shown(path: Path, here: Path) -> str:
    """The path, relative to `here` if it is below it."""
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
