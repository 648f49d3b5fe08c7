"""Replicate as a back-end: https://replicate.com/docs/reference/http, or a server with the same
API.

Replicate makes its own ids; the router's prediction keeps its id. To create a prediction there is
not idempotent, so the request is never sent again when it may have arrived. `Cancel-After` limits
the cost of a prediction there whose id the router does not know.
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
from router.models.process_interface import NotStartedError, Report, StartError
from router.prediction import FileRef, Job, Json, LogText, Outcome
from router.remote import responses as answers
from router.remote.files import ANY_TYPE, INLINE_BYTES, inline, media_type, with_files, with_outputs
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
POLL_FIRST_S = 0.1
POLL_MAX_S = 2.0  # Replicate allows 3000 requests a minute
CANCEL_AFTER_MIN_S = 5


class ReplicateBackend:
    """Implements `router.remote.backend.Backend` for one model of one account."""

    def __init__(self, http: RemoteHttp, model: str, *, timeout_s: float) -> None:
        """Raises ValueError when `model` is not a valid name (see MODEL)."""
        match = MODEL.fullmatch(model)
        if match is None:
            raise ValueError("must be owner/name, owner/name:version or deployment:owner/name")
        deployment, owner, name, self._version = match.groups()
        self._http = http
        self._timeout_s = timeout_s
        self._is_deployment = bool(deployment)
        kind = "deployments" if deployment else "models"
        self._path = f"/v1/{kind}/{quote(owner)}/{quote(name)}"
        self._ids: dict[str, str] = {}  # of what runs now: our id to Replicate's

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # ---- availability ----------------------------------------------------------------------

    async def probe(self) -> None:
        """Get the model's data, which costs nothing. Raises StartError when that fails."""
        model = await self._model()
        if self._is_deployment or self._version:
            return
        # Only Replicate's official models can run without a version.
        latest = model.get("latest_version")
        self._version = str(latest["id"]) if isinstance(latest, dict) else None

    async def schema(self) -> dict[str, Json]:
        """See `Backend.schema`."""
        model = await self._model()
        version = model.get("latest_version")
        if self._is_deployment:
            release = model.get("current_release")
            found = release if isinstance(release, dict) else {}
            version = await self._get(
                f"/v1/models/{found.get('model')}/versions/{found.get('version')}"
            )
        elif self._version:
            version = await self._get(f"{self._path}/versions/{quote(self._version)}")
        schema = version.get("openapi_schema") if isinstance(version, dict) else None
        if not isinstance(schema, dict):
            raise StartError("its back-end has no schema of its inputs")
        return schema

    async def _model(self) -> dict[str, Json]:
        return await self._get(self._path)

    async def _get(self, path: str) -> dict[str, Json]:
        try:
            answer = await self._http.ask_safely("GET", path, timeout_s=30)
        except (NotSentError, BrokenOffError) as error:
            raise StartError(f"the back-end cannot be reached: {error}", outage=True) from error
        if answer.status != 200:
            raise answers.start_error(answer)
        return answer.object()

    # ---- predictions -----------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """See `Backend.predict`."""
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
        """See `Backend.cancel`. It is asked for only when Replicate's id is known already."""
        their_id = self._ids.get(prediction_id)
        if their_id is not None:
            with contextlib.suppress(NotSentError, BrokenOffError, TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT_S):
                    path = f"/v1/predictions/{quote(their_id)}/cancel"
                    await self._http.ask_safely("POST", path)
        return their_id is not None

    async def abandon(self, prediction_id: str) -> None:
        """Cancel it: if it ran again, it would be a second prediction there, and both would
        cost."""
        await self.cancel(prediction_id)

    async def _place(self, file: FileRef) -> str:
        """Send a small file as a data: URI in the request. Upload a large one first and return its
        URL. Raises NotStartedError when the upload fails."""
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
        """Upload, and try again like a GET, as a second upload of a file does no harm. Raises
        NotStartedError."""
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
                    raise NotStartedError(f"the back-end accepts no upload: {error}") from error
            await asyncio.sleep(delay_s)

    async def _create(self, body: dict[str, Json], give_up: float) -> RemoteResponse:
        """POST until the back-end accepts or refuses it. Raises NotStartedError when it was not
        sent, and BrokenOffError when it may have been."""
        path = f"{self._path}/predictions"
        if self._version and not self._is_deployment:
            path = "/v1/predictions"
            body = {"version": self._version, **body}
        delays = retry_delays()
        while True:
            left_s = max(give_up - time.monotonic(), 0.0)
            # Without `Prefer: wait`: until the response comes its id is not known, so it could not
            # be cancelled.
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
        """Poll from the first response to the end of the prediction. Raises BrokenOffError when a
        poll fails."""
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
            raise BrokenOffError(f"it answered {answer.status} to a request for the prediction")
        return answer.object()

    # ---- outputs ---------------------------------------------------------------------------

    def _is_ours(self, url: str) -> bool:
        """Whether a URL in an output is a file of Replicate, and not only text."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        delivered = host == DELIVERY or host.endswith(f".{DELIVERY}")
        return (delivered and parts.scheme == "https") or self._is_api(url)

    def _is_api(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._http.base_url)[:2]

    async def _fetch(self, url: str) -> tuple[bytes, str]:
        """An output file: its bytes and media type. Raises BrokenOffError when it cannot be
        read."""
        try:
            # Files are on another host, which must not get our key.
            answer = await self._http.ask_safely("GET", url, with_key=self._is_api(url))
        except NotSentError as error:
            raise BrokenOffError(str(error)) from error
        if answer.status != 200:
            raise BrokenOffError(f"it answered {answer.status} to a request for an output file")
        return answer.body, answer.headers.get("Content-Type", "").partition(";")[0]
