"""`callme config schema`: the schema of all settings, for editors and scripts."""

from __future__ import annotations

import typer

from router.cli.common import print_json
from router.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def add_commands(app: typer.Typer) -> None:
    """Add `config` and its subcommands."""
    config = typer.Typer(help="The settings.", no_args_is_help=True)
    config.command()(schema)
    config.callback()(_group)
    app.add_typer(config, name="config")


def _group() -> None:
    """The settings."""


def schema() -> None:
    """Print the JSON Schema of callme.toml."""
    print_json({"$schema": DIALECT, **Settings.model_json_schema()})
