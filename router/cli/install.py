"""`callme install`: environments for packages that need their own. `callme up` makes them too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from router.cli.common import console, err_console, read_settings
from router.cli.deploy import package_folder
from router.models.catalog import PackageError
from router.models.environment import in_use, present, site_packages
from router.models.install import (
    LOG,
    InstallError,
    State,
    install,
    missing_system_packages,
    run_commands,
    state_of,
    system_command,
)
from router.models.requirements import Requirements, lacking, read_requirements
from router.settings import Settings

# What pip prints of its steps that a person wants to see.
STEPS = re.compile(r"(Collecting|Downloading|Building|Installing|Preparing|Using cached) .*")
NAMED = 4


def add_commands(app: typer.Typer) -> None:
    """Add `install`."""
    app.command(name="install")(install_command)


def install_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models, or folders of packages; default: all that need it."),
    ] = None,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Make it from nothing, also where none is needed.")
    ] = False,
    system: Annotated[
        bool,
        typer.Option("--system", help="Also install system packages and run cog.yaml's commands."),
    ] = False,
) -> None:
    """Install what a package needs into an environment of its own, .venv in its folder."""
    if models:
        folders = [package_folder(model).resolve() for model in models]
    else:
        folders = list(package_folders(read_settings()))
    how = {"again": again, "system": system, "named": bool(models)}
    failed = [folder for folder in folders if not install_one(folder, **how)]
    if failed:
        raise typer.Exit(1)


def package_folders(settings: Settings) -> Iterator[Path]:
    """The folders of the packages that run on this machine."""
    for path in sorted(settings.packages_dir.resolve().glob("*/cog.yaml")):
        own = settings.models.get(path.parent.name)
        if own is None or own.backend in ("local", "overflow"):
            yield path.parent.resolve()


def install_one(
    folder: Path, *, again: bool = False, system: bool = False, named: bool = True
) -> bool:
    """Do what one package needs, print it, and return whether it went well. `named`: print also
    that there was nothing to do."""
    name = folder.name
    try:
        needs = read_requirements(folder)
        state = state_of(folder, needs)
        if again or state.needs_install:
            before = present(folder)
            if _install(folder, needs, state, again=again) and named:
                how = "the model runs with the earlier one until"
                if present(folder) == before:
                    how = "changed under the running model"
                line = f"      {how}: callme restart {name}"
                console.print(line, soft_wrap=True, markup=False)
        elif state is State.BY_HAND and (without := lacking_of_own(folder, needs)):
            raise InstallError(
                f"{state.value}, and lacks {_few(without)}: install that there, or see --again"
            )
        elif named:
            console.print(f"  [green]✓[/green] {name}  {state.value}", soft_wrap=True)
        _beside_python(folder, needs, system=system, named=named)
    except (InstallError, PackageError) as error:
        console.print(f"  [red]✗[/red] {name}  not installed: {escape(str(error))}", soft_wrap=True)
        if (folder / LOG).exists():
            console.print(f"      more: {folder / LOG}", soft_wrap=True, markup=False)
        return False
    return True


def _install(folder: Path, needs: Requirements, state: State, *, again: bool) -> bool:
    """Install, and return whether a model ran with the environment that was there."""
    was_used = in_use(present(folder))
    what = _few(lacking(needs)) or _few(needs.lines) or "Cog"
    why = "" if state is State.MISSING or not state.needs_install else f", as {state.value}"
    console.print(f"  · {folder.name}  installs {what}{why}", soft_wrap=True, markup=False)
    with err_console.status("") as status:

        def show(line: str) -> None:
            if step := STEPS.search(line):
                status.update(escape(f"{folder.name}: {step[0][: err_console.width - 20]}"))

        note = install(folder, needs, show, again=again)
    console.print(
        f"  [green]✓[/green] {folder.name}  installed into .venv, with Python {note.python}",
        soft_wrap=True,
    )
    return was_used


def _beside_python(folder: Path, needs: Requirements, *, system: bool, named: bool) -> None:
    """What cog.yaml asks of the machine itself: done with `system`, else listed."""
    packages = missing_system_packages(needs.system_packages)
    commands = [system_command(packages)] if packages else []
    commands += [["sh", "-c", command] for command in needs.commands]
    if not commands or not (named or system):
        return
    if system:
        run_commands(folder, commands, lambda line: console.print(f"      {line}", markup=False))
        return
    console.print("      cog.yaml also asks for, and callme install --system does:", markup=False)
    for argv in commands:
        text = argv[-1] if argv[0] == "sh" else " ".join(argv)
        console.print(f"        {text}", soft_wrap=True, markup=False)


def install_needed(settings: Settings) -> None:
    """Install what packages lack, before they are served. One that fails is served as it is."""
    for folder in package_folders(settings):
        install_one(folder, named=False)


def lacking_of_own(folder: Path, needs: Requirements) -> list[str]:
    """The requirements that the package's own environment does not satisfy."""
    return lacking(needs, site_packages(folder))


def _few(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return ", ".join(lines[:NAMED]) + more
