"""`callme supabase deploy`: the edge function to its project, by Supabase's own CLI."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from router.cli.common import err_console, fail, read_settings
from router.settings import CHECKOUT

FUNCTION = "backend_server"
INSTALL = "Install it: npm install -g supabase"


def add_commands(app: typer.Typer) -> None:
    """`supabase` and what is below it."""
    supabase = typer.Typer(help="The edge function's side.", no_args_is_help=True)
    supabase.callback()(_group)
    supabase.command()(deploy)
    app.add_typer(supabase, name="supabase")


def _group() -> None:
    """The edge function's side."""


def deploy(
    project: Annotated[
        str | None,
        typer.Option(help="The project's reference; default: as set, or SUPABASE_PROJECT_ID."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Passed on: the CLI's profile, for a Supabase of your own.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="What holds supabase/config.toml.", file_okay=False)
    ] = CHECKOUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command only.")] = False,
) -> None:
    """Upload the function; no Docker is needed. Its secrets are set by `callme up --public`."""
    settings = read_settings()
    project = project or settings.supabase_project or os.environ.get("SUPABASE_PROJECT_ID")
    if not project:
        fail("Cannot deploy: which project? Say --project REF or set SUPABASE_PROJECT_ID.", code=2)
    if not (folder / "supabase" / "config.toml").is_file():
        fail(f"Cannot deploy: there is no supabase/config.toml in {folder}.", code=2)
    program = shutil.which("supabase")
    arguments = ["functions", "deploy", FUNCTION, "--use-api", "--yes"]
    if profile:
        arguments = ["--profile", profile, *arguments]
    # The option --project-ref is deprecated since version 3; the variable works in 2 as well.
    env = {**os.environ, "SUPABASE_PROJECT_ID": project}
    if settings.supabase_access_token:
        env["SUPABASE_ACCESS_TOKEN"] = settings.supabase_access_token.get_secret_value()
    if dry_run:
        typer.echo(f"SUPABASE_PROJECT_ID={project} {shlex.join(['supabase', *arguments])}")
        return
    if program is None:
        fail("Cannot deploy: 'supabase' is not on PATH.", INSTALL, 2)
    done = subprocess.run([program, *arguments], cwd=folder, env=env, check=False)  # noqa: S603 - found on PATH, no shell
    if done.returncode != 0:
        fail(f"supabase ended with code {done.returncode}; its reason stands above.")
    err_console.print(f"Deployed {FUNCTION} to project {project}.")
