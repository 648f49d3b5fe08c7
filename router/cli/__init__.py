"""The `callme` command. One module per group of commands; each adds its own in `add_commands`."""

from __future__ import annotations

import typer

from router import __version__
from router.cli import (
    config,
    deploy,
    doctor,
    install,
    keys,
    new,
    operate,
    predict,
    ray_cluster,
    save,
    serve,
    status,
    supabase,
    usage,
)
from router.cli.help_text import without_types
from router.cli.serve import curl_line

__all__ = ["app", "curl_line", "main"]

# In the order of `callme --help`. A new group is a module with `add_commands`, added here.
GROUPS = (
    *(serve, predict, save, new, install, operate, status, usage, keys, doctor, config, supabase),
    deploy,
    ray_cluster,
)

without_types()
app = typer.Typer(
    help="Serve every Cog package of a folder over HTTP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"callme {__version__}")
        raise typer.Exit


@app.callback()
def callme(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Serve every Cog package of a folder over HTTP."""


for group in GROUPS:
    group.add_commands(app)


def main() -> None:
    """Run the `callme` command."""
    app()
