"""Shared by all groups of commands: output, settings and errors."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from router.config_mistakes import explain, explain_toml
from router.settings import Settings

# Results go to stdout; progress and errors go to stderr.
console = Console(highlight=False)
err_console = Console(highlight=False, stderr=True)

FOREIGN_SECRETS = ("SUPABASE_ACCESS_TOKEN", "TUNNEL_TOKEN")

NO_MODULE = re.compile(r"\bModuleNotFoundError: ")
NO_NAME = re.compile(r"\bImportError: cannot import name '[^']*' from '([\w.]+)'")
NO_SYSTEM_LIBRARY = re.compile(
    r"\b(?:ImportError|OSError): (?:\S+: )?(lib[\w.+-]+\.so[\w.]*): cannot open"
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def forget_secrets() -> None:
    """Remove the keys of other platforms from the environment, which models inherit."""
    for name in FOREIGN_SECRETS:
        os.environ.pop(name, None)


def fail(message: str, hint: str = "", code: int = 1) -> NoReturn:
    """Print what is wrong and, with `hint`, what to do about it. End with exit code `code`."""
    err_console.print(f"[red]{escape(message)}[/red]", soft_wrap=True)
    if hint:
        err_console.print(f"  {hint}", soft_wrap=True, markup=False)
    raise typer.Exit(code)


def import_hint(reason: str, model: str) -> str:
    """What to do about an import that failed; "" when the reason is another one."""
    if NO_MODULE.search(reason):
        return f"If requirements.txt does not name it, add it there. Then: callme install {model}"
    if found := NO_SYSTEM_LIBRARY.search(reason):
        return (
            f"The machine lacks {found[1]}: name its Debian package under system_packages in "
            f"cog.yaml. Then: callme install --system {model}"
        )
    found = NO_NAME.search(reason)
    if found and found[1].partition(".")[0] not in sys.stdlib_module_names:
        return (
            f"Another version of {found[1]} may have it: name that in requirements.txt. "
            f"Then: callme install {model}"
        )
    return ""


def read_settings(packages: Path | None = None, **given: Any) -> Settings:
    """The settings. Values in `given` that are not None replace them. With `packages`, the settings
    of callme.toml in that folder. Ends with code 2 when a setting is not valid."""
    if packages is not None:
        os.environ["CALLME_PACKAGES_DIR"] = str(packages.resolve())
    try:
        return Settings().model_copy(update={k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        for sentence in explain(error, os.environ):
            err_console.print(f"[red]{escape(sentence)}[/red]", soft_wrap=True)
        raise typer.Exit(2) from error
    except tomllib.TOMLDecodeError as error:
        fail(explain_toml(error), code=2)
    except OSError as error:
        fail(f"Cannot read {error.filename}: {error.strerror}", code=2)


def print_json(value: Any) -> None:
    """Print JSON on stdout, indented, for a person or a script."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def base_url(settings: Settings) -> str:
    """The router's URL for programs on this machine."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return f"http://{host}:{settings.port}"
