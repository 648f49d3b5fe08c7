"""`callme new`: a package that runs as it is, to change into one's own model."""

from __future__ import annotations

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from router.cli.common import console, fail
from router.cli.new_templates import SAMPLES, TEMPLATES
from router.models.catalog import NAME, RESERVED


class Template(StrEnum):
    """What the model takes and gives."""

    TEXT = "text"
    PICTURE = "picture"
    AUDIO = "audio"
    STREAM = "stream"


def add_commands(app: typer.Typer) -> None:
    """Add `new`."""
    app.command()(new)


def new(
    name: Annotated[
        str, typer.Argument(help="The model's name, or the path of the folder to make.")
    ],
    *,
    template: Annotated[
        Template, typer.Option("--template", "-t", help="What the model takes and gives.")
    ] = Template.TEXT,
) -> None:
    """Make a folder with a small model that runs as it is, with a test."""
    folder = Path(name)
    if not NAME.fullmatch(folder.name):
        fail(
            f"Cannot make '{folder.name}': a model's name has lower-case letters, digits, '-' "
            "and '_', and begins with a letter",
            code=2,
        )
    if folder.name in RESERVED:
        fail(f"Cannot make '{folder.name}': this is one of the router's own paths", code=2)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        fail(f"Cannot make '{folder}': it exists already", code=2)
    except OSError as error:
        fail(f"Cannot make '{folder}': {error.strerror}")
    files, inputs = TEMPLATES[template.value]
    for file, text in files.items():
        (folder / file).write_text(text)
    (folder / "example.json").write_text(json.dumps(inputs, indent=2) + "\n")
    for value in inputs.values():
        if (sample := str(value).removeprefix("@")) in SAMPLES:
            (folder / sample).write_bytes(SAMPLES[sample]())
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    console.print(f"Made {folder}/: {', '.join(names)}", soft_wrap=True)
    shown = str(folder) if folder.is_absolute() or len(folder.parts) > 1 else f"./{folder}"
    given = " ".join(f"-i {shlex.quote(f'{k}={_value(v, shown)}')}" for k, v in inputs.items())
    console.print("\nTry it, and change run.py:\n")
    for line in (
        f"python {folder}/test_run.py",
        f"callme predict {shown} {given}".rstrip(),
        f"callme up --reload --packages {shlex.quote(str(folder.parent))}",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _value(value: object, folder: str) -> str:
    """An input's value for the command line; a file's path is relative to the current folder."""
    text = str(value)
    return f"@{folder}/{text[1:]}" if text.startswith("@") else text
