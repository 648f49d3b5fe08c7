"""One replica on a Ray cluster: one coglet, and the predictions that Serve sends to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from cog_server import CogServer
from ray_files import LocalFiles, TransferError, remove, sent
from ray_source import python_of, unpack

JSON = "application/json"
EVENTS = "text/event-stream"
BUSY_RETRY_S = 0.001
# coglet answers 409 for some milliseconds after each prediction, and always after its worker died.
BROKEN_AFTER_S = 3.0
CANCEL_EVERY_S = 0.1
CANCEL_LIMIT_S = 10.0
# The answer that shows the fault is on its way to the caller for so long.
END_AFTER_S = 1.0
WELL = ("READY", "BUSY")
# Not the model's: Ray's own modules and memory allocator.
RAYS_OWN = ("PYTHONPATH", "LD_PRELOAD")
# The answer for a prediction that certainly never began.
NOT_BEGUN = 503
# The answer when an input cannot be fetched from the router, which then sends it again.
NO_INPUT = 502


def make_scratch(name: str) -> Path:
    """A new folder of this process. Those of processes that were killed are deleted."""
    for left in Path(tempfile.gettempdir()).glob(f"callme-{name}-*-*"):
        pid = left.name.split("-")[-2]
        if pid.isdigit() and not _runs(pid):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"callme-{name}-{os.getpid()}-"))


def _runs(pid: str) -> bool:
    """Whether the process still runs: one that was killed is listed until its parent notices."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class CogReplica:
    """Serve's deployment of a package: `concurrency` predictions at once in one coglet.

    `node_folder`: where a node may have the package's weights and environment. `source`: see
    `ray_source.pack`. `env`: of the model's process.
    """

    def __init__(
        self,
        node_folder: str,
        source: bytes,
        runner: str,
        *,
        concurrency: int,
        setup_timeout_s: int,
        env: Mapping[str, str],
    ) -> None:
        """Run the package's set-up. Raises SetupFailedError."""
        node = Path(node_folder)
        self._broken = ""
        self._places = asyncio.Semaphore(concurrency)
        self._running = 0
        self._http: aiohttp.ClientSession | None = None
        self._scratch = make_scratch(node.name)
        self._files = LocalFiles(self._scratch / "files")
        unpack(source, self._scratch / "src", node)
        own = {k: v for k, v in os.environ.items() if k not in RAYS_OWN}
        self._server = CogServer(
            self._scratch / "src",
            runner,
            concurrency=concurrency,
            setup_timeout_s=setup_timeout_s,
            python=python_of(node),
            env={**own, "TMPDIR": str(self._scratch), "PYTHONUNBUFFERED": "1", **env},
            tied=True,
        )
        try:
            self._server.start()
        except BaseException:
            self.__del__()
            raise

    async def check_health(self) -> None:
        """What Serve asks. It replaces a replica that raises here three times in a row."""
        health = await asyncio.to_thread(self._server.health)
        # The runner's own check may be late while the runner works.
        if not self._broken and health.get("status") == "UNHEALTHY" and self._running:
            return
        if self._broken or health.get("status") not in WELL:
            raise RuntimeError(self._broken or f"coglet: {health or 'no answer'}")

    async def predict(
        self, body: bytes, prediction_id: str, files_url: str = ""
    ) -> tuple[int, str, bytes]:
        """Cog's answer: status, content type, body. NOT_BEGUN when another replica must run it.
        `files_url`: of large files (`ray_files`), "" when all are in the body."""
        files: list[Path] = []
        try:
            if files_url:  # before it takes a place: the GPU need not wait for files
                body, files = await self._files.fetched(self._client(), body, files_url)
            async with self._post(body, prediction_id, JSON) as answer:
                if answer is None:
                    return NOT_BEGUN, JSON, b"{}"
                content = await answer.read()
        except TransferError as error:
            return NO_INPUT, JSON, json.dumps({"detail": str(error)}).encode()
        finally:
            remove(files)
        if b'"failed"' in content:
            await self._note_death()
        if files_url:
            content = await sent(self._client(), content, files_url)
        return answer.status, answer.headers.get("Content-Type", JSON), content

    async def stream(self, body: bytes, prediction_id: str) -> AsyncIterator[Any]:
        """Cog's answer as it comes: first (status, content type), then pieces of the body."""
        async with self._post(body, prediction_id, EVENTS) as answer:
            if answer is None:
                yield NOT_BEGUN, JSON
                return
            yield answer.status, answer.headers.get("Content-Type", JSON)
            async for piece in answer.content.iter_any():
                yield piece
        await self._note_death()

    @contextlib.asynccontextmanager
    async def _post(
        self, body: bytes, prediction_id: str, accept: str
    ) -> AsyncIterator[aiohttp.ClientResponse | None]:
        """Send it to coglet; None when that takes nothing. A caller that stops waiting cancels
        it."""
        headers = {"Content-Type": JSON, "Accept": accept}
        loop = asyncio.get_running_loop()
        url = f"{self._server.url}/predictions"
        async with self._places, self._counted():
            try:
                give_up = loop.time() + BROKEN_AFTER_S
                while not self._broken:
                    async with self._client().post(url, data=body, headers=headers) as answer:
                        if answer.status != 409:
                            yield answer
                            return
                    if loop.time() > give_up:
                        self._break("coglet takes no predictions")
                    await asyncio.sleep(BUSY_RETRY_S)
                yield None
            except (asyncio.CancelledError, GeneratorExit):
                await asyncio.shield(self._cancel(prediction_id))
                raise
            except aiohttp.ClientError as error:
                self._break(f"coglet is gone: {error!r}")
                raise RuntimeError(self._broken) from error

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _cancel(self, prediction_id: str) -> None:
        """Until it has ended, so that its place is free when this returns."""
        url = f"{self._server.url}/predictions/{prediction_id}/cancel"
        try:
            async with asyncio.timeout(CANCEL_LIMIT_S):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with self._client().post(url) as answer:
                            if answer.status == 404:
                                return
                    await asyncio.sleep(CANCEL_EVERY_S)
        except TimeoutError:
            self._break("the model did not stop after a cancel")

    async def _note_death(self) -> None:
        health = await asyncio.to_thread(self._server.health)
        if health.get("status") not in (*WELL, "UNHEALTHY"):
            self._break("the model's worker died")

    def _break(self, why: str) -> None:
        """End this replica soon: Serve replaces one that has ended at once, and one that is
        unhealthy only after three checks."""
        if not self._broken:
            self._broken = why
            asyncio.get_running_loop().call_later(END_AFTER_S, os._exit, 1)

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=0)
            no_limit = aiohttp.ClientTimeout(total=None)
            self._http = aiohttp.ClientSession(timeout=no_limit, connector=connector)
        return self._http

    def __del__(self) -> None:
        """Serve calls this when the replica has drained."""
        if server := getattr(self, "_server", None):
            server.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)
