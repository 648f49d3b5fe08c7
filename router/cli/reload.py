"""`callme up --reload`: restarts a model whose files have changed, and only this one.

A package that cannot be read leaves its old process at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from rich.markup import escape

from router.cli.common import console, import_hint
from router.errors import RouterError
from router.logs import StartFailureFilter
from router.models.source_files import Stamp, changed, stamps

LOOK_EVERY_S = 0.25


async def restart_changed(
    folders: Mapping[str, Path],
    restart: Callable[[str], Awaitable[None]],
    show: Callable[[str], Awaitable[None]],
    failures: StartFailureFilter,
) -> None:
    """Look for changes without an end. `folders`: each model's. `show` prints how a model is after
    its restart. `failures` hides its log lines until then."""
    known = await asyncio.to_thread(_all, folders)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = await asyncio.to_thread(_all, folders)
        if now == known:
            continue
        # An editor or a checkout may write several files: wait until nothing changes any more.
        while (later := await _after(folders)) != now:
            now = later
        for model in folders:
            if files := changed(known[model], now[model]):
                console.print(f"  {model}: {', '.join(files[:3])} changed", markup=False)
                with failures.hidden(model):
                    await _restart(model, restart, show)
        known = now


async def _after(folders: Mapping[str, Path]) -> Mapping[str, Mapping[str, Stamp]]:
    await asyncio.sleep(LOOK_EVERY_S / 2)
    return await asyncio.to_thread(_all, folders)


def _all(folders: Mapping[str, Path]) -> Mapping[str, Mapping[str, Stamp]]:
    return {model: stamps(folder) for model, folder in folders.items()}


async def _restart(
    model: str, restart: Callable[[str], Awaitable[None]], show: Callable[[str], Awaitable[None]]
) -> None:
    try:
        await restart(model)
    except RouterError as error:
        console.print(f"  [red]✗[/red] {escape(error.message)}", soft_wrap=True)
        if hint := import_hint(error.message, model):
            console.print(f"      {hint}", soft_wrap=True, markup=False)
        console.print("      the old code goes on serving", markup=False)
    else:
        await show(model)
