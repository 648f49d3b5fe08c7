"""`callme config schema`: what can be set, for editors and for scripts."""

from __future__ import annotations

import typer

from router.cli.common import print_json
from router.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def add_commands(app: typer.Typer) -> None:
    """`config` and what is below it."""
    config = typer.Typer(help="What can be set.", no_args_is_help=True)
    config.command()(schema)
    config.callback()(_group)
    app.add_typer(config, name="config")


def _group() -> None:
    """What can be set."""


def schema() -> None:
    """Print the JSON Schema of callme.toml."""
    print_json({"$schema": DIALECT, **Settings.model_json_schema()})
