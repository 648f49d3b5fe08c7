"""`callme predict`: one prediction, by a running router or, if none runs, by a temporary one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import aiohttp
import typer

from router.cli.client import (
    Answer,
    KeyOption,
    RefusedError,
    RouterClient,
    Target,
    UnreachableError,
    Url,
    fail_refused,
    fail_unreachable,
    find_router,
)
from router.cli.common import (
    err_console,
    fail,
    forget_secrets,
    import_hint,
    read_settings,
)
from router.cli.deploy import new_folder_hint, no_model
from router.cli.ephemeral import TemporaryError, temporary_router
from router.cli.predict_inputs import Pair, forgotten_at, read_json, read_pairs, read_variables
from router.cli.progress import shown_progress
from router.cli.save import take_files
from router.logs import StartFailureFilter, configure_logging
from router.model_settings import ModelSettings
from router.models.catalog import PackageError, read_package
from router.models.tracebacks import last_raised, last_traceback, with_location, without_tracebacks
from router.settings import Settings

# Errors for which the model's log may have a traceback.
OF_THE_MODEL = frozenset({"prediction_failed", "model_unavailable", "worker_died"})
POLL_S = 1.0
ENDED = frozenset({"succeeded", "failed", "canceled", "aborted"})


class FailedError(Exception):
    """The model has failed. `error`: why. `log`: the lines that it printed, for its operator."""

    def __init__(self, error: RefusedError | ValueError, log: Sequence[str]) -> None:
        super().__init__(str(error))
        self.error = error
        self.traceback = last_traceback(log)
        raised = last_raised(log)
        self.location = raised.location if raised else ""


def add_commands(app: typer.Typer) -> None:
    """Add `predict`, and `run`, which is Cog's name for it."""
    # What is left over is refused with a better reason than "unexpected extra argument".
    settings = {"allow_extra_args": True}
    app.command(context_settings=settings)(predict)
    app.command(name="run", context_settings=settings)(predict)


@dataclass(frozen=True, slots=True)
class Given:
    """What the model is asked: `pairs` of the form, or `inputs` as JSON; and the `variables` of its
    process."""

    pairs: Sequence[Pair]
    inputs: Mapping[str, Any] | None
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """A prediction's output and, when it was asked as JSON, the prediction as Cog shows it."""

    output: Any
    shown: dict[str, Any] | None = None


def predict(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's name, or the folder of its package; default: this folder."),
    ] = None,
    *,
    ctx: typer.Context,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="name=value, or name=@path for a file; repeat it for a list."
        ),
    ] = None,
    json_inputs: Annotated[
        str | None,
        typer.Option(
            "--json",
            help="All inputs as a JSON object, @path of one, or - for stdin; prints JSON too.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the output, or the file in it."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", help="NAME=value for the model's process; starts one for it."),
    ] = None,
    url: Url = None,
    key: KeyOption = None,
) -> None:
    """Run a model once. Without a running router, the package is started and stopped for this."""
    if ctx.args:
        fail(f"Cannot use '{ctx.args[0]}': did you forget -i? {_with_i(model, ctx.args)}", code=2)
    if given and json_inputs is not None:
        fail("Cannot use -i and --json together: give all inputs by one of them", code=2)
    if variables and url:
        fail("Cannot use -e with --url: a running model's variables cannot be changed", code=2)
    asked = Given(
        read_pairs(given or []),
        None if json_inputs is None else read_json(json_inputs),
        read_variables(variables or []),
    )
    settings = read_settings()
    configure_logging(logging.ERROR)
    StartFailureFilter().hide()
    forget_secrets()
    as_json = asked.inputs is not None
    target = find_router(settings, url, key)
    name = _named(model)
    try:
        work = _predict(settings, name, asked, target)
        _deliver(asyncio.run(work), output)
    except FailedError as failed:
        # The first line is in the last sentence too; alone it says nothing more.
        for line in failed.traceback if len(failed.traceback) > 1 else ():
            err_console.print(line, markup=False, soft_wrap=True)
        hint = import_hint(str(failed.error), name)
        if isinstance(failed.error, RefusedError):
            fail_refused(failed.error, as_json, failed.location, hint)
        fail(with_location(str(failed.error), failed.location), hint)
    except (TemporaryError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"Cannot write the output: {error.strerror}")
    except UnreachableError as error:
        fail_unreachable(error)
    except RefusedError as error:
        hint = forgotten_at(asked.pairs) if error.status == 422 else ""
        fail_refused(error, as_json, hint=hint or new_folder_hint(error, target, settings, name))
    except KeyboardInterrupt:
        fail("Stopped; the prediction is canceled.", code=130)


def _with_i(model: str | None, more: Sequence[str]) -> str:
    given = [word for text in more for word in ("-i", text)]
    return shlex.join(["callme", "predict", *([model] if model else []), *given])


def _named(model: str | None) -> str:
    """The model that is meant. Ends with code 2 when none is."""
    if model is None:
        if not Path("cog.yaml").is_file():
            fail("Cannot run a model: name one, or go to the folder of a package", code=2)
        return "."
    if "=" in model:
        fail(f"Cannot find a model '{model}': did you forget -i?", code=2)
    return model


def _deliver(ended: Ended, output: Path | None) -> None:
    """Write the output's files to disk, and print the rest, as Cog does.

    An output without files is written to `output`, if given, instead of printed. Ends with code 1
    when the prediction has not succeeded.
    """
    destination = output.expanduser() if output else None
    shown = ended.shown
    beside = destination.with_suffix("") if destination and shown is not None else destination
    value, files = take_files(ended.output, beside)
    for path in files:
        _written(path)
    if shown is not None:
        value = {**shown, "output": value}
        files.clear()  # their paths are in the JSON
    if value is None:
        err_console.print("[yellow]No output generated[/yellow]")
    elif files and (isinstance(value, str) or _is_list_of(files, value)):
        pass  # said already
    elif destination and not files:
        if destination.is_dir():
            destination /= "output" if shown is None else "output.json"
        destination.write_text(_text(value))
        _written(destination)
    else:
        typer.echo(_text(value))
    if shown is not None and shown.get("status") != "succeeded":
        raise typer.Exit(1)


def _is_list_of(files: Sequence[Path], value: Any) -> bool:
    return isinstance(value, list) and {*map(str, files)} >= {*map(str, value)}


def _written(path: Path) -> None:
    err_console.print(f"Written output to: {path}", soft_wrap=True, markup=False)


async def _predict(settings: Settings, model: str, given: Given, target: Target) -> Ended:
    """Run it and return how it has ended."""
    async with (
        _router_for(settings, model, given.variables, target) as (found, name),
        RouterClient(found) as router,
        shown_progress(found, name),
    ):
        try:
            if given.inputs is not None:
                return await _ask_as_json(router, name, given.inputs)
            return Ended(await _ask(router, name, given.pairs))
        except RefusedError as error:
            if error.code not in OF_THE_MODEL:
                raise
            raise FailedError(error, await _log_of(router, name, error)) from error


async def _log_of(router: RouterClient, model: str, error: RefusedError) -> Sequence[str]:
    """What the model has printed about the error; nothing when the key may not read it."""
    path = f"/models/{quote(model, safe='')}/logs"
    if error.code == "prediction_failed":
        path += f"?prediction={quote(error.prediction_id, safe='')}"
    with contextlib.suppress(RefusedError, UnreachableError):
        lines: list[str] = (await router.get(path))["lines"]
        return lines
    return ()


@contextlib.asynccontextmanager
async def _router_for(
    settings: Settings, model: str, variables: Mapping[str, str], target: Target
) -> AsyncIterator[tuple[Target, str]]:
    """A router that has the model, and the model's name. With `variables` it is a temporary one."""
    folder = Path(model)
    is_folder = os.sep in model or model in (".", "..")
    if not is_folder and not variables and await _answers(target):
        yield target, model
        return
    if not target.own:
        raise UnreachableError(f"Cannot reach a router at {target.url}")
    package = (folder if is_folder else settings.packages_dir / model).resolve()
    try:
        name = read_package(package, {}).name
    except PackageError as error:
        if not (package / "cog.yaml").is_file():
            no_model(model, settings)
        raise ValueError(f"Cannot start '{model}': {error}") from error
    if err_console.is_terminal:
        err_console.print(f"Starting {name} for this prediction.")
    if variables:
        before = settings.models.get(name, ModelSettings())
        one = before.model_copy(update={"env": {**before.env, **variables}})
        settings = settings.model_copy(update={"models": {**settings.models, name: one}})
    async with temporary_router(package, settings) as own:
        yield own, name


async def _answers(target: Target) -> bool:
    async with RouterClient(target) as router:
        return await router.is_router()


async def _ask_as_json(router: RouterClient, model: str, inputs: Mapping[str, Any]) -> Ended:
    """Ask by Cog's API, which shows the whole prediction, and leaves out unknown inputs."""
    path = f"/models/{quote(model, safe='')}/predictions"
    for unknown in await _unknown(router, model, inputs):
        err_console.print(f"'{unknown}' is no input of {model}: it has no effect", markup=False)
    shown = (await router.send("POST", path, json={"input": inputs})).json()
    while shown["status"] not in ENDED:
        await asyncio.sleep(POLL_S)
        shown = await router.get(f"{path}/{shown['id']}")
    for line in last_traceback((shown.get("logs") or "").splitlines()):
        err_console.print(line, markup=False, soft_wrap=True)
    shown["logs"] = without_tracebacks(shown.get("logs") or "")
    shown.pop("input", None)
    return Ended(shown["output"], shown)


async def _unknown(router: RouterClient, model: str, inputs: Mapping[str, Any]) -> Collection[str]:
    with contextlib.suppress(RefusedError, KeyError):
        schema = await router.get(f"/models/{quote(model, safe='')}/openapi.json")
        known = schema["components"]["schemas"]["Input"].get("properties", {})
        return sorted(inputs.keys() - known.keys())
    return ()


async def _ask(router: RouterClient, model: str, inputs: Sequence[Pair]) -> Any:
    with contextlib.ExitStack() as files:
        form = _form(inputs, files)
        answer = await router.send("POST", f"/{quote(model, safe='')}", data=form)
    return await _wait_for(router, answer) if answer.status == 202 else answer.json()


def _form(inputs: Sequence[Pair], files: contextlib.ExitStack) -> aiohttp.FormData:
    # A form also for a model without inputs.
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in inputs:
        if value.startswith("@"):
            path = Path(value[1:])
            form.add_field(name, files.enter_context(path.open("rb")), filename=path.name)
        else:
            form.add_field(name, value)
    return form


async def _wait_for(router: RouterClient, accepted: Answer) -> Any:
    """Poll a prediction that took longer than the synchronous limit, and return its output. Raises
    FailedError when it does not succeed."""
    path = accepted.headers["Location"]
    while True:
        state = await router.get(path)
        if state["status"] in ENDED:
            break
        await asyncio.sleep(POLL_S)
    if state["status"] != "succeeded":
        reason = (state.get("error") or {}).get("message", "no reason given")
        error = ValueError(f"The prediction {state['status']}: {reason}")
        raise FailedError(error, (state.get("logs") or "").splitlines())
    return state["output"]


def _text(output: Any) -> str:
    """A text unchanged, anything else as JSON."""
    if isinstance(output, str):
        return output
    return json.dumps(output, indent=2, ensure_ascii=False)
