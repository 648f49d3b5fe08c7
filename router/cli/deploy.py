"""`build`, `push` and `modal deploy` bring a package to another platform.

Each calls the platform's own tool, and passes on its output and exit status unchanged.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from router.cli.client import RefusedError, Target
from router.cli.common import err_console, fail, read_settings
from router.config_mistakes import did_you_mean
from router.models.catalog import PackageError, read_package
from router.settings import CHECKOUT, Settings

MODAL_APP = CHECKOUT / "deploy" / "modal_app.py"
NO_COG = "install Cog's CLI (https://cog.run), or use only Docker: python deploy/container.py {}"
NO_MODAL = "install it with `pip install modal`, then run `modal setup` once"

Model = Annotated[str, typer.Argument(help="A model's name, or the folder of its package.")]
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}

modal = typer.Typer(help="Models on Modal.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Add `build`, `push` and `modal deploy`."""
    app.command(context_settings=EXTRA)(build)
    app.command(context_settings=EXTRA)(push)
    app.add_typer(modal, name="modal")


def build(
    context: typer.Context,
    model: Model,
    tag: Annotated[
        str, typer.Option("--tag", "-t", help="Image name; default: callme-MODEL.")
    ] = "",
) -> None:
    """Build the package's image with `cog build`; further options are passed on to it."""
    folder = package_folder(model)
    cog = find_tool("cog", NO_COG.format(folder.name))
    _run([cog, "build", "--tag", tag or f"callme-{folder.name}", *context.args], folder)


def push(
    context: typer.Context,
    model: Model,
    image: Annotated[str, typer.Argument(help="The image's name, such as r8.im/owner/name.")],
) -> None:
    """Build and push the package's image with `cog push`, for example to Replicate."""
    folder = package_folder(model)
    cog = find_tool("cog", NO_COG.format(folder.name))
    _run([cog, "push", image, *context.args], folder)


@modal.callback()
def modal_group() -> None:
    """Models on Modal."""


@modal.command()
def deploy(
    model: Model,
    *,
    gpu: Annotated[str, typer.Option(help="The GPU, such as L4, L40S, H100.")] = "",
    weights: Annotated[str, typer.Option(help="WEIGHTS in the container; default: its own.")] = "",
    secret: Annotated[
        list[str] | None, typer.Option(help="A Modal secret for its environment; may be repeated.")
    ] = None,
    scaledown_s: Annotated[
        int | None, typer.Option(min=2, max=1200, help="Seconds until an idle container ends.")
    ] = None,
    min_containers: Annotated[
        int | None,
        typer.Option(min=0, help="Containers that always run, and cost, even when idle."),
    ] = None,
    max_containers: Annotated[
        int | None, typer.Option(min=1, help="The most containers at a time.")
    ] = None,
    snapshot: Annotated[
        bool, typer.Option(help="Start containers from a snapshot of a loaded one.")
    ] = True,
) -> None:
    """Deploy the package on Modal with `modal deploy`; the app is callme-MODEL."""
    folder = package_folder(model)
    command = [find_tool("modal", NO_MODAL), "deploy", str(MODAL_APP)]
    env = {
        "MODEL": folder.name,
        "PACKAGES_DIR": str(folder.parent),
        "GPU": gpu,
        "WEIGHTS": weights,
        "SECRETS": ",".join(secret or ()),
        "SCALEDOWN_S": "" if scaledown_s is None else str(scaledown_s),
        "MIN_CONTAINERS": "" if min_containers is None else str(min_containers),
        "MAX_CONTAINERS": "" if max_containers is None else str(max_containers),
        "SNAPSHOT": "on" if snapshot else "off",
    }
    if not MODAL_APP.is_file():
        fail(
            "Cannot deploy to Modal: this is an installed wheel, without deploy/modal_app.py",
            "use a checkout of the repository",
        )
    _run(command, CHECKOUT, {k: v for k, v in env.items() if v})


def package_folder(model: str) -> Path:
    """The folder of a package, by name or path. Ends the command when there is no such package."""
    settings = read_settings()
    named = Path(model).expanduser()
    folder = named if (named / "cog.yaml").is_file() else settings.packages_dir / model
    if not (folder / "cog.yaml").is_file():
        no_model(model, settings)
    try:
        return read_package(folder.resolve(), {}).folder
    except PackageError as error:
        fail(f"Cannot use '{model}': {error}")


def no_model(model: str, settings: Settings) -> NoReturn:
    """End the command: there is no such model and no such folder."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        fail(f"Cannot find a model in '{model}': there is no cog.yaml in it")
    if os.sep in model:
        siblings = [path.parent.name for path in folder.parent.glob("*/cog.yaml")]
        fail(f"Cannot find a folder '{model}'{did_you_mean(folder.name, siblings)}")
    names = sorted(path.parent.name for path in settings.packages_dir.glob("*/cog.yaml"))
    there = ", ".join(names) or "none"
    fail(
        f"Cannot find a model '{model}'{did_you_mean(model, names)}",
        f"In {settings.packages_dir.resolve()} there are: {there}",
    )


def new_folder_hint(error: RefusedError, target: Target, settings: Settings, model: str) -> str:
    """What to do when this machine's router does not know a model that has a folder; else ""."""
    has_folder = (settings.packages_dir / model / "cog.yaml").is_file()
    if target.own and error.code == "unknown_model" and has_folder:
        return "The router reads the folder when it starts: stop it, and run it again."
    return ""


def find_tool(name: str, hint: str) -> str:
    """The tool's path, next to this interpreter or on PATH. Without one, this command ends."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        fail(f"Cannot do this here: there is no `{name}`", hint)
    return found


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a tool in `folder`. When it fails, this command ends with the same exit code."""
    err_console.print(shlex.join(command), style="dim", soft_wrap=True, markup=False)
    # The router's settings may contain keys, and no other tool needs them.
    ours = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    done = subprocess.run(command, cwd=folder, env={**ours, **(env or {})}, check=False)  # noqa: S603
    if done.returncode:
        raise typer.Exit(done.returncode)
