"""Progress bars on a terminal while a model loads and runs. Without a terminal nothing is shown.

The bar of a load is relative to the time of earlier loads, if the router knows one. The bar of a
download shows the bytes that were added to the hub's cache; its total is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from router.cli.client import RefusedError, RouterClient, Target, UnreachableError
from router.cli.common import err_console

LOOK_EVERY_S = 0.25
# Reading a cache of thousands of files takes some milliseconds.
MEASURE_EVERY_S = 1.0
# Smaller growth is only configuration and lock files.
NOTICEABLE_BYTES = 1 << 20
WORDS = {
    "stopped": "waits to start",
    "starting": "loads",
    "waking": "wakes",
    "asleep": "waits to wake",
    "stopping": "makes room",
    "ready": "runs",
    "busy": "runs",
    "unhealthy": "is unhealthy",
    "failed": "starts again",
}


def hub_cache() -> Path:
    """The folder for huggingface_hub's downloads, from its environment variables."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface"
    )
    return Path(home) / "hub"


def size_of(folder: Path) -> int:
    """Bytes of all files below. Links are not followed; files that disappear are not counted."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total


class Downloads:
    """How much a folder has grown since this object was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = size_of(folder)
        self._read_at = time.monotonic()
        self._grown = 0

    def grown_bytes(self) -> int:
        """The growth in bytes, at most a second old; 0 while it is under NOTICEABLE_BYTES."""
        if time.monotonic() - self._read_at > MEASURE_EVERY_S:
            self._grown = size_of(self._folder) - self._before
            self._read_at = time.monotonic()
        return self._grown if self._grown >= NOTICEABLE_BYTES else 0


@contextlib.asynccontextmanager
async def shown_progress(target: Target, model: str) -> AsyncIterator[None]:
    """Show on stderr what `model` does, until the block ends. Only on a terminal."""
    if not err_console.is_terminal:
        yield
        return
    watching = asyncio.create_task(_watch(target, model))
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(target: Target, model: str) -> None:
    downloads = await asyncio.to_thread(Downloads, hub_cache()) if target.own else None
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err_console, transient=True) as loading:
        bar = LoadBar(loading, model)
        async with RouterClient(target) as router, contextlib.AsyncExitStack() as stack:
            bytes_bar: tuple[Progress, TaskID] | None = None
            while True:
                with contextlib.suppress(UnreachableError, RefusedError, KeyError):
                    bar.show((await router.get("/status"))["models"][model])
                grown = await asyncio.to_thread(downloads.grown_bytes) if downloads else 0
                if grown and bytes_bar is None:
                    progress = stack.enter_context(_download_progress())
                    bytes_bar = progress, progress.add_task("weights", total=None)
                if bytes_bar:
                    bytes_bar[0].update(bytes_bar[1], completed=grown)
                await asyncio.sleep(LOOK_EVERY_S)


def _download_progress() -> Progress:
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=err_console, transient=True)


class LoadBar:
    """One line for one model: what it does, and the progress of its load if that is known."""

    def __init__(self, progress: Progress, model: str) -> None:
        self._progress = progress
        self._model = model
        self._task = progress.add_task(f"{model} …", total=None)

    def show(self, model: dict[str, Any]) -> None:
        """Show the model as /status describes it."""
        state = str(model["state"])
        words = WORDS.get(state, state)
        if waiting := len(model["queue"]):
            words += f", {waiting} in line"
        load_s = model["load_s"] if state == "starting" else None
        done_s = min(model["state_for_s"] or 0.0, load_s) if load_s else None
        text = f"{self._model} {words}"
        self._progress.update(self._task, description=text, total=load_s, completed=done_s)
