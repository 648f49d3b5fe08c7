"""`callme predict`: one prediction, by a running router or, if none runs, by a temporary one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
from collections.abc import AsyncIterator, Sequence
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
    Json,
    err_console,
    fail,
    forget_secrets,
    import_hint,
    print_json,
    read_settings,
)
from router.cli.ephemeral import TemporaryError, temporary_router
from router.cli.progress import shown_progress
from router.cli.save import take_files
from router.logs import configure_logging
from router.models.catalog import PackageError, read_package
from router.models.tracebacks import last_raised, last_traceback, with_place
from router.settings import Settings

# Errors for which the model's log may have a traceback.
OF_THE_MODEL = frozenset({"prediction_failed", "model_unavailable", "worker_died"})
POLL_S = 1.0
LONGEST_PATH = 1024
ENDED = frozenset({"succeeded", "failed", "canceled", "aborted"})
Pair = tuple[str, str]


class FailedError(Exception):
    """The model has failed. `error`: why. `log`: the lines that it printed, for its operator."""

    def __init__(self, error: RefusedError | ValueError, log: Sequence[str]) -> None:
        super().__init__(str(error))
        self.error = error
        self.traceback = last_traceback(log)
        raised = last_raised(log)
        self.place = raised.place if raised else ""


def add_commands(app: typer.Typer) -> None:
    """Add `predict`."""
    app.command()(predict)


def predict(
    model: Annotated[str, typer.Argument(help="A model's name, or the folder of its package.")],
    *,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="name=value, or name=@path for a file; repeat it for a list."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write the output, or the file in it, to."),
    ] = None,
    url: Url = None,
    key: KeyOption = None,
    as_json: Json = False,
) -> None:
    """Run a model once. Without a running router, the package is started and stopped for this."""
    inputs = read_inputs(given or [])
    settings = read_settings()
    configure_logging(logging.ERROR)
    forget_secrets()
    try:
        work = _predict(settings, model, inputs, find_router(settings, url, key))
        _deliver(*asyncio.run(work), output, as_json)
    except FailedError as failed:
        for line in failed.traceback:
            err_console.print(line, markup=False, soft_wrap=True)
        if isinstance(failed.error, RefusedError):
            hint = import_hint(str(failed.error), model)
            fail_refused(failed.error, as_json, failed.place, hint)
        fail(with_place(str(failed.error), failed.place), import_hint(str(failed.error), model))
    except (TemporaryError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"Cannot write the output: {error.strerror}")
    except UnreachableError as error:
        fail_unreachable(error)
    except RefusedError as error:
        fail_refused(error, as_json, hint=_forgotten_at(inputs) if error.status == 422 else "")
    except KeyboardInterrupt:
        fail("Stopped; the prediction is canceled.", code=130)


def _deliver(prediction_id: str, result: Any, output: Path | None, as_json: bool) -> None:
    """Write the output's files to disk, and print the rest. An output without files is written to
    `output`, if given, instead of printed."""
    value, files = take_files(result, output)
    if output and not files:
        output.write_text(_text(value))
    for path in files or ([output] if output else []):
        err_console.print(f"Written: {path}", soft_wrap=True)
    if as_json:
        print_json({"id": prediction_id, "output": value, "files": [str(path) for path in files]})
    elif not output or files:
        typer.echo(_text(value))


def read_inputs(given: Sequence[str]) -> list[Pair]:
    """The pairs of `name=value` and `name=@path`. Ends with code 2 when a text is neither, or there
    is no such file."""
    pairs = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"Cannot read -i '{text}': it must be name=value or name=@path", code=2)
        if value.startswith("@") and not Path(value[1:]).is_file():
            fail(f"Cannot read -i '{text}': there is no file '{value[1:]}'", code=2)
        pairs.append((name, value))
    return pairs


def _forgotten_at(inputs: Sequence[Pair]) -> str:
    """A question about the first value that is the path of a file, and "" when there is none."""
    for name, value in inputs:
        if len(value) < LONGEST_PATH and Path(value).is_file():
            return f"Did you mean the file? -i {shlex.quote(f'{name}=@{value}')}"
    return ""


async def _predict(
    settings: Settings, model: str, inputs: Sequence[Pair], target: Target
) -> tuple[str, Any]:
    """The prediction's id and output."""
    async with (
        _router_for(settings, model, target) as (found, name),
        RouterClient(found) as router,
        shown_progress(found, name),
    ):
        try:
            return await _ask(router, name, inputs)
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
    settings: Settings, model: str, target: Target
) -> AsyncIterator[tuple[Target, str]]:
    """A router that has the model, and the model's name."""
    folder = Path(model)
    is_folder = os.sep in model or model in (".", "..")
    if not is_folder and await _answers(target):
        yield target, model
        return
    if not target.own:
        raise UnreachableError(f"Cannot reach a router at {target.url}")
    package = (folder if is_folder else settings.packages_dir / model).resolve()
    try:
        name = read_package(package, {}).name
    except PackageError as error:
        raise ValueError(f"Cannot start '{model}': {error}") from error
    if err_console.is_terminal:
        err_console.print(f"No router runs; starting {name} for this prediction.")
    async with temporary_router(package, settings) as own:
        yield own, name


async def _answers(target: Target) -> bool:
    async with RouterClient(target) as router:
        return await router.is_router()


async def _ask(router: RouterClient, model: str, inputs: Sequence[Pair]) -> tuple[str, Any]:
    with contextlib.ExitStack() as files:
        form = _form(inputs, files)
        answer = await router.send("POST", f"/{quote(model, safe='')}", data=form)
    prediction_id = answer.headers.get("X-Prediction-Id", "")
    if answer.status == 202:
        return prediction_id, await _wait_for(router, answer)
    return prediction_id, answer.json()


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
