"""`callme supabase`: the functions and the database schema on the app's Supabase project."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from router.cli.common import Json, err_console, fail, forget_secrets, print_json, read_settings
from router.cli.doctor import CheckStatus, Finding, show
from router.cli.supabase_api import (
    FUNCTIONS,
    WEBHOOK_SECRET,
    ManagementApi,
    ManagementError,
    compare,
    read_deployed,
)
from router.cli.supabase_types import render
from router.models.catalog import Package, survey
from router.models.process_interface import StartError
from router.models.schemas import describe
from router.predictions.webhook_sender import WEBHOOK_FILE, load_secret
from router.settings import CHECKOUT, Settings
from router.storage.private_files import NotPrivateError, make_state_folder

INSTALL = "Install it: npm install -g supabase"
TOKEN = "SUPABASE_ACCESS_TOKEN"  # noqa: S105 - its name
PROJECT = "SUPABASE_PROJECT_ID"
# With this the database can call the function that sends what waits.
SET_UP = """
update callme.settings set functions_url = 'https://{ref}.supabase.co/functions/v1'
where functions_url is null;
select callme.schedule() as clock
"""

Project = Annotated[
    str | None, typer.Option(help=f"The project's reference; default: the setting, or {PROJECT}.")
]
Profile = Annotated[
    str | None, typer.Option(help="The Supabase CLI's profile, for a Supabase of your own.")
]
Folder = Annotated[
    Path, typer.Option(help="The folder that contains supabase/config.toml.", file_okay=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the commands only.")]

supabase = typer.Typer(help="Functions and database on Supabase.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Add `supabase` and its subcommands."""
    app.add_typer(supabase, name="supabase")


@supabase.callback()
def supabase_group() -> None:
    """Functions and database on Supabase."""


@supabase.command("deploy")
def deploy_function(
    project: Project = None,
    profile: Profile = None,
    folder: Folder = CHECKOUT,
    every: Annotated[
        bool, typer.Option("--all", help="The functions of `init` too, without its other steps.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Upload the edge function, without Docker. `callme up --public` sets its secrets."""
    settings = read_settings()
    ref = _project(settings, project, folder, "deploy")
    names = FUNCTIONS if every else FUNCTIONS[:1]
    _run_cli(settings, ref, profile, folder, _deploy(names), dry_run=dry_run)
    if not dry_run:
        err_console.print(f"Deployed {', '.join(names)} to project {ref}.")


@supabase.command()
def init(
    project: Project = None,
    profile: Profile = None,
    folder: Folder = CHECKOUT,
    database_url: Annotated[
        str | None,
        typer.Option(help="The database's address (postgresql://…); default: the project's own."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Keep predictions in the project's database: migrations, three functions, secrets.

    Run it again after each update: it does what is missing. docs/supabase explains all of it."""
    settings = read_settings()
    ref = _project(settings, project, folder, "set up")
    push = ["db", "push", f"--remote={database_url or ref}", "--yes"]
    for command in (push, _deploy(FUNCTIONS)):
        _run_cli(settings, ref, profile, folder, command, dry_run=dry_run)
    if dry_run:
        typer.echo(f"and then: expose the schema, set {WEBHOOK_SECRET}, start callme.schedule()")
        return
    try:
        asyncio.run(_configure(_api(settings, ref), _webhook_secret(settings.state)))
    except ManagementError as error:
        fail(f"Cannot set up the project: {error}", "run the command again when that is solved")
    err_console.print(f"Project {ref} is set up. Next: callme up --public")


@supabase.command()
def status(project: Project = None, folder: Folder = CHECKOUT, as_json: Json = False) -> None:
    """Show what is deployed, what differs from here, and what to do."""
    _show(_examine(project, folder), as_json=as_json)


@supabase.command()
def doctor(project: Project = None, folder: Folder = CHECKOUT, as_json: Json = False) -> None:
    """As `status`, with exit code 1 when something does not fit."""
    findings = _examine(project, folder)
    _show(findings, as_json=as_json)
    if any(finding.status is CheckStatus.FAIL for finding in findings):
        raise typer.Exit(1)


@supabase.command()
def types(
    packages: Annotated[
        Path | None,
        typer.Option(help="The folder with the packages; default: the setting.", file_okay=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: print it.")
    ] = None,
) -> None:
    """Write TypeScript types of the models' inputs and outputs, for supabase/client/callme.ts."""
    settings = read_settings(packages)
    forget_secrets()
    every, left_out = survey(settings.packages_dir.resolve(), _model_env(settings))
    found = {name: package for name, package in every.items() if "@" not in name}
    for name, reason in left_out.items():
        err_console.print(f"Left out: {name}: {reason}", markup=False, soft_wrap=True)
    if not found:
        fail(f"Cannot write types: there is no package in {settings.packages_dir}.", code=2)
    text = render(asyncio.run(_schemas(found)))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        fail(f"Cannot write {output}: {error.strerror}")
    err_console.print(f"Written: {output} ({', '.join(found)})", markup=False, soft_wrap=True)


def _model_env(settings: Settings) -> dict[str, dict[str, str]]:
    """Variables of the models, on which their inputs may depend."""
    return {name: dict(model.env) for name, model in settings.models.items()}


async def _schemas(packages: dict[str, Package]) -> dict[str, Mapping[str, Any]]:
    """The OpenAPI document of each package. Ends when a runner cannot be read."""
    schemas = {}
    for name, package in packages.items():
        try:
            schemas[name] = (await describe(package)).schema
        except StartError as error:
            location = f" ({error.location})" if error.location else ""
            fail(f"Cannot write types: {name}: {error}{location}")
    return schemas


def _examine(project: str | None, folder: Path) -> list[Finding]:
    settings = read_settings()
    api = _api(settings, _project(settings, project, folder, "look"))
    path = settings.state / WEBHOOK_FILE
    try:
        deployed = asyncio.run(read_deployed(api))
    except ManagementError as error:
        fail(f"Cannot read the project: {error}", f"check {TOKEN} and the project's reference")
    own = _webhook_secret(settings.state) if path.exists() else None
    return list(compare(deployed, folder / "supabase", own))


def _show(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        show(finding)


async def _configure(api: ManagementApi, webhook_secret: str) -> None:
    if await api.expose_schema():
        err_console.print("The REST API serves the schema callme now.")
    await api.set_secret(WEBHOOK_SECRET, webhook_secret)
    rows = await api.run_sql(SET_UP.format(ref=api.project))
    if rows:
        err_console.print(str(rows[-1].get("clock", "")), markup=False)


def _deploy(functions: tuple[str, ...]) -> list[str]:
    return ["functions", "deploy", *functions, "--use-api", "--yes"]


def _project(settings: Settings, given: str | None, folder: Path, what: str) -> str:
    ref = given or settings.supabase_project or os.environ.get(PROJECT)
    if not ref:
        fail(f"Cannot {what}: no project is set. Use --project REF or {PROJECT}.", code=2)
    if not (folder / "supabase" / "config.toml").is_file():
        fail(f"Cannot {what}: there is no supabase/config.toml in {folder}.", code=2)
    return ref


def _api(settings: Settings, ref: str) -> ManagementApi:
    given = settings.supabase_access_token
    token = given.get_secret_value() if given else os.environ.get(TOKEN)
    if not token:
        fail(f"Cannot ask Supabase: {TOKEN} is not set.", code=2)
    return ManagementApi(ref, token, settings.supabase_api_url.rstrip("/"))


def _webhook_secret(state: Path) -> str:
    try:
        make_state_folder(state)
        return load_secret(state / WEBHOOK_FILE)
    except NotPrivateError as error:
        fail(f"Cannot read the webhook secret: {error}")


def _run_cli(
    settings: Settings,
    ref: str,
    profile: str | None,
    folder: Path,
    arguments: list[str],
    *,
    dry_run: bool,
) -> None:
    """Run Supabase's CLI. When it fails, this command ends."""
    if profile:
        arguments = ["--profile", profile, *arguments]
    if dry_run:
        typer.echo(f"{PROJECT}={ref} {shlex.join(['supabase', *arguments])}")
        return
    program = shutil.which("supabase") or _no_cli()
    # The option --project-ref is deprecated since version 3; the variable also works in version 2.
    env = {**os.environ, PROJECT: ref}
    if settings.supabase_access_token:
        env[TOKEN] = settings.supabase_access_token.get_secret_value()
    done = subprocess.run([program, *arguments], cwd=folder, env=env, check=False)  # noqa: S603 - found on PATH, no shell
    if done.returncode != 0:
        fail(f"supabase ended with code {done.returncode}; see its output above.")


def _no_cli() -> NoReturn:
    fail("Cannot deploy: 'supabase' is not on PATH.", INSTALL, 2)
