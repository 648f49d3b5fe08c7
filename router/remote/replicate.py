"""Replicate as a back-end: https://replicate.com/docs/reference/http, or what speaks like it.

Its ids are its own; the router's prediction keeps the router's. Creating one is not
idempotent, so it is never sent twice once it may have arrived; `Cancel-After` bounds what one
that nobody knows of can cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp

from router.errors import DeadlineExceeded
from router.models.process import NotStartedError, Report, StartError
from router.prediction import FileRef, Job, Json, LogText, Outcome
from router.remote import responses as answers
from router.remote.files import ANY_TYPE, inline, media_type, with_files, with_outputs
from router.remote.http import (
    CANCEL_TIMEOUT_S,
    TAKES_NONE_NOW,
    BrokenOffError,
    NotSentError,
    RemoteHttp,
    RemoteResponse,
    delay_before_retry_s,
    retry_delays,
)

API = "https://api.replicate.com"
# "owner/name", "owner/name:version", or "deployment:owner/name".
MODEL = re.compile(r"(deployment:)?(\w[\w.-]*)/(\w[\w.-]*)(?::(\w[\w.-]*))?")
DELIVERY = "replicate.delivery"
# "Use a data URL for small files, up to 256 kB" - Replicate's HTTP reference.
INLINE_BYTES = 256 << 10
POLL_FIRST_S = 0.1
POLL_MAX_S = 2.0  # 3000 a minute are allowed
CANCEL_AFTER_MIN_S = 5


class ReplicateBackend:
    """Fulfils `router.remote.backend.Backend` for one model of one account."""

    def __init__(self, http: RemoteHttp, model: str, *, timeout_s: float) -> None:
        """Raises ValueError for a model that cannot be one."""
        match = MODEL.fullmatch(model)
        if match is None:
            raise ValueError("must be owner/name, owner/name:version or deployment:owner/name")
        deployment, owner, name, self._version = match.groups()
        self._http = http
        self._timeout_s = timeout_s
        self._is_deployment = bool(deployment)
        kind = "deployments" if deployment else "models"
        self._path = f"/v1/{kind}/{quote(owner)}/{quote(name)}"
        self._ids: dict[str, str] = {}  # of what runs now: ours to theirs

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # ---- is it there -----------------------------------------------------------------------

    async def probe(self) -> None:
        """Ask for the model, which costs nothing. Raises StartError."""
        model = await self._model()
        if self._is_deployment or self._version:
            return
        # Only Replicate's own models run without one.
        latest = model.get("latest_version")
        self._version = str(latest["id"]) if isinstance(latest, dict) else None

    async def schema(self) -> dict[str, Json]:
        """The version's OpenAPI document. Raises StartError."""
        model = await self._model()
        version = model.get("latest_version")
        if self._is_deployment:
            release = model.get("current_release")
            told = release if isinstance(release, dict) else {}
            version = await self._get(
                f"/v1/models/{told.get('model')}/versions/{told.get('version')}"
            )
        elif self._version:
            version = await self._get(f"{self._path}/versions/{quote(self._version)}")
        schema = version.get("openapi_schema") if isinstance(version, dict) else None
        if not isinstance(schema, dict):
            raise StartError("its back-end does not say what it takes")
        return schema

    async def _model(self) -> dict[str, Json]:
        return await self._get(self._path)

    async def _get(self, path: str) -> dict[str, Json]:
        try:
            answer = await self._http.ask_safely("GET", path, timeout_s=30)
        except (NotSentError, BrokenOffError) as error:
            raise StartError(f"the back-end cannot be reached: {error}") from error
        if answer.status != 200:
            raise answers.start_error(answer)
        return answer.object()

    # ---- predictions -----------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run it there. Raises NotStartedError when it certainly never began."""
        give_up = time.monotonic() + self._timeout_s
        try:
            async with asyncio.timeout(self._timeout_s):
                body: dict[str, Json] = {"input": await with_files(job, self._place)}
                answer = await self._create(body, give_up)
                if answer.status not in (200, 201, 202):
                    return answers.of_answer(answer)
                return await self._follow(job.id, answer.object(), report)
        except TimeoutError:
            await self.cancel(job.id)
            limit = f"{self._timeout_s:.0f} s"
            return answers.failed(DeadlineExceeded.code, f"The back-end took longer than {limit}")
        except BrokenOffError as error:
            await self.cancel(job.id)
            return answers.broken_off(str(error))
        finally:
            self._ids.pop(job.id, None)

    async def cancel(self, prediction_id: str) -> bool:
        """Ask for a cancel, where its id there is known already."""
        their_id = self._ids.get(prediction_id)
        if their_id is not None:
            with contextlib.suppress(NotSentError, BrokenOffError, TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT_S):
                    path = f"/v1/predictions/{quote(their_id)}/cancel"
                    await self._http.ask_safely("POST", path)
        return their_id is not None

    async def abandon(self, prediction_id: str) -> None:
        """Cancel it: run again, it would be another one there, and both would cost."""
        await self.cancel(prediction_id)

    async def _place(self, file: FileRef) -> str:
        """A small file in the request itself; a large one uploaded before it."""
        path = Path(file.path)
        content = await asyncio.to_thread(path.read_bytes)
        if len(content) <= INLINE_BYTES:
            return await inline(file)
        kind = media_type(file.name)
        kind = media_type(path.name) if kind == ANY_TYPE else kind

        def form() -> aiohttp.FormData:
            data = aiohttp.FormData()
            data.add_field("content", content, filename=path.name, content_type=kind)
            return data

        answer = await self._upload(form)
        urls = answer.object().get("urls")
        if answer.status not in (200, 201) or not isinstance(urls, dict) or "get" not in urls:
            raise NotStartedError(f"the back-end answered {answer.status} to an upload")
        return str(urls["get"])

    async def _upload(self, form: Callable[[], aiohttp.FormData]) -> RemoteResponse:
        """An upload that came twice does no harm: it is tried again like a GET."""
        delays = retry_delays()
        while True:
            try:
                answer = await self._http.ask("POST", "/v1/files", data=form())
                if answer.status not in TAKES_NONE_NOW:
                    return answer
                delay_s = delay_before_retry_s(answer, delays)
                if delay_s is None:
                    return answer
            except (NotSentError, BrokenOffError) as error:
                if (delay_s := next(delays, None)) is None:
                    raise NotStartedError(f"the back-end takes no upload: {error}") from error
            await asyncio.sleep(delay_s)

    async def _create(self, body: dict[str, Json], give_up: float) -> RemoteResponse:
        """POST until it is taken. Raises NotStartedError, BrokenOffError."""
        path = f"{self._path}/predictions"
        if self._version and not self._is_deployment:
            path = "/v1/predictions"
            body = {"version": self._version, **body}
        delays = retry_delays()
        while True:
            left_s = max(give_up - time.monotonic(), 0.0)
            # Without `Prefer: wait`: until it is answered nobody could cancel it, since its id
            # is not known.
            headers = {"Cancel-After": f"{max(CANCEL_AFTER_MIN_S, math.ceil(left_s))}s"}
            try:
                answer = await self._http.ask("POST", path, json=body, headers=headers)
            except NotSentError as error:
                if (delay_s := next(delays, None)) is None:
                    raise NotStartedError(f"the back-end cannot be reached: {error}") from error
            else:
                if answer.status not in TAKES_NONE_NOW:
                    return answer
                delay_s = delay_before_retry_s(answer, delays, give_up)
                if delay_s is None:
                    return answer
            await asyncio.sleep(delay_s)

    async def _follow(self, our_id: str, p: dict[str, Json], report: Report) -> Outcome:
        """From the first answer to how it ended. Raises BrokenOffError."""
        their_id = p.get("id")
        if not isinstance(their_id, str) or not their_id:
            return answers.failed(answers.BACKEND_FAILED, "The back-end answered without an id")
        self._ids[our_id] = their_id
        known = ""
        poll_s = POLL_FIRST_S
        while (outcome := answers.of_prediction(p)) is None:
            logs = str(p.get("logs") or "")
            if len(logs) > len(known):
                report(LogText(logs[len(known) :]))
                known = logs
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.5, POLL_MAX_S)
            p = await self._poll(their_id)
        if p.get("output") is None:
            return outcome
        output = await with_outputs(p["output"], self._is_ours, self._fetch)
        return answers.of_prediction(p, output) or outcome

    async def _poll(self, their_id: str) -> dict[str, Json]:
        try:
            answer = await self._http.ask_safely("GET", f"/v1/predictions/{quote(their_id)}")
        except NotSentError as error:
            raise BrokenOffError(str(error)) from error
        if answer.status != 200:
            raise BrokenOffError(f"it answered {answer.status} when asked how it goes")
        return answer.object()

    # ---- outputs ---------------------------------------------------------------------------

    def _is_ours(self, url: str) -> bool:
        """Whether a URL in an output is a file of Replicate's, and not just text."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        delivered = host == DELIVERY or host.endswith(f".{DELIVERY}")
        return (delivered and parts.scheme == "https") or self._is_api(url)

    def _is_api(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._http.base_url)[:2]

    async def _fetch(self, url: str) -> tuple[bytes, str]:
        """A file of an output: its bytes and type. Raises BrokenOffError."""
        try:
            # Files are delivered from another host, which is not to have our key.
            answer = await self._http.ask_safely("GET", url, with_key=self._is_api(url))
        except NotSentError as error:
            raise BrokenOffError(str(error)) from error
        if answer.status != 200:
            raise BrokenOffError(f"it answered {answer.status} when asked for a file of the output")
        return answer.body, answer.headers.get("Content-Type", "").partition(";")[0]
