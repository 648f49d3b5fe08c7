"""`callme save`: an answer's files out of its JSON; the end of a pipe that begins with curl."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from router.cli.common import fail, print_json
from router.cli.output_files import take_files


def add_commands(app: typer.Typer) -> None:
    """`save`."""
    app.command()(save)


def save(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the file.")
    ] = None,
) -> None:
    """Read an answer from stdin, write the files in it, and print it with their paths."""
    text = sys.stdin.read()
    try:
        answer = json.loads(text)
    except ValueError:
        fail(f"Cannot save: this is no answer of the router: {text[:200] or 'nothing'}")
    try:
        told, _ = take_files(answer, output)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"Cannot write the output: {error.strerror}")
    print_json(told)
    if isinstance(answer, dict) and "error" in answer and set(answer) == {"error"}:
        raise typer.Exit(1)
