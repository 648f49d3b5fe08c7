"""A back-end that speaks Cog: another box of ours, a container of the package, Modal.

A prediction keeps its id there. Another box of ours never runs an id twice, so after a lost
connection it is asked what became of it; a bare coglet cannot be asked, and what it may have
begun is not sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from router.errors import DeadlineExceeded
from router.models.process import NotStartedError, Report, StartError
from router.prediction import Job, Json, LogText, Outcome
from router.remote import responses as answers
from router.remote.files import with_files
from router.remote.http import (
    CANCEL_TIMEOUT_S,
    LOOP_DETECTED,
    TAKES_NONE_NOW,
    BrokenOffError,
    NotSentError,
    RemoteHttp,
    RemoteResponse,
    delay_before_retry_s,
    retry_delays,
)

# Others use that machine too, so a busy one is waited for, not given up.
BUSY_FIRST_S = 0.005
BUSY_MAX_S = 0.1
BUSY_CHECK_EVERY_S = 2.0
POLL_FIRST_S = 0.2
POLL_MAX_S = 2.0
PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 15.0
# Modal answers a web request that takes longer with a 303 to the same wait again:
# https://modal.com/docs/guide/webhook-timeouts
MODAL_HOLDS_S = 150.0


class CogBackend:
    """Fulfils `router.remote.backend.Backend`.

    `start_timeout_s`: how long a server that is still setting up is waited for. `is_modal`: a
    request that meets a busy container there starts another, and that costs money. So its
    health is not asked for, and a cancel is a connection that is closed.
    """

    def __init__(
        self, http: RemoteHttp, *, timeout_s: float, start_timeout_s: float, is_modal: bool = False
    ) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._is_modal = is_modal

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # ---- is it there -----------------------------------------------------------------------

    async def probe(self) -> None:
        """Wait until it takes predictions. Raises StartError."""
        if self._is_modal:
            return
        give_up = time.monotonic() + self._start_timeout_s
        while True:
            status = await self._health()
            if status in ("READY", "BUSY"):
                return
            if status != "STARTING" or time.monotonic() > give_up:
                raise StartError(f"the back-end is {status}")
            await asyncio.sleep(PROBE_EVERY_S)

    async def _health(self) -> str:
        try:
            answer = await self._http.ask_safely("GET", "/health-check", timeout_s=PROBE_TIMEOUT_S)
        except (NotSentError, BrokenOffError) as error:
            raise StartError(f"the back-end cannot be reached: {error}") from error
        if answer.status != 200:
            raise answers.start_error(answer)
        return str(answer.object().get("status") or "not a Cog server")

    async def schema(self) -> dict[str, Json]:
        """Its OpenAPI document. Raises StartError."""
        try:
            answer = await self._http.ask_safely("GET", "/openapi.json")
        except (NotSentError, BrokenOffError) as error:
            raise StartError(f"its back-end cannot be reached: {error}") from error
        if answer.status == LOOP_DETECTED:
            raise StartError("its back-end leads back to this box")
        document = answer.object()
        if answer.status != 200 or "Input" not in _schemas(document):
            reason = f"its back-end answered {answer.status} when asked what it takes"
            raise StartError(reason, retry_after_s=answer.retry_after_s())
        return document

    # ---- predictions -----------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run it there. Raises NotStartedError when it certainly never began."""
        body: dict[str, Json] = {"id": job.id, "input": await with_files(job)}
        if job.context:
            body["context"] = job.context
        give_up = time.monotonic() + self._timeout_s
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._send(body, give_up)
                return await self._follow(job.id, answer, report)
        except TimeoutError:
            await self.cancel(job.id)
            limit = f"{self._timeout_s:.0f} s"
            return answers.failed(DeadlineExceeded.code, f"The back-end took longer than {limit}")

    async def cancel(self, prediction_id: str) -> bool:
        """Ask for a cancel, where asking costs nothing."""
        if self._is_modal:
            return False
        with contextlib.suppress(NotSentError, BrokenOffError, TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._http.ask_safely("POST", f"/predictions/{prediction_id}/cancel")
        return True

    async def abandon(self, prediction_id: str) -> None:
        """Let it run: another box of ours is asked for it again under the same id, and would
        answer that it was canceled."""

    async def _send(self, body: Mapping[str, Json], give_up: float) -> RemoteResponse | None:
        """POST until it is taken; the answer, None when the connection was lost meanwhile."""
        delays = retry_delays()
        busy_s = BUSY_FIRST_S
        check_at = time.monotonic() + BUSY_CHECK_EVERY_S
        while True:
            try:
                answer = await self._http.ask("POST", "/predictions", json=body)
            except NotSentError as error:
                if (delay_s := next(delays, None)) is None:
                    raise NotStartedError(f"the back-end cannot be reached: {error}") from error
            except BrokenOffError:
                return None
            else:
                if answer.status == 409 and _code(answer) != "id_conflict":
                    # Its one slot is taken: by somebody else, or not yet freed.
                    delay_s = busy_s
                    busy_s = min(busy_s * 2, BUSY_MAX_S)
                    if time.monotonic() > check_at:
                        await self._see_whether_it_lives()
                        check_at = time.monotonic() + BUSY_CHECK_EVERY_S
                elif answer.status in TAKES_NONE_NOW:
                    delay_s = delay_before_retry_s(answer, delays, give_up)
                    if delay_s is None:
                        return answer
                else:
                    return answer
            if time.monotonic() + delay_s > give_up:
                raise TimeoutError
            await asyncio.sleep(delay_s)

    async def _see_whether_it_lives(self) -> None:
        """A coglet whose worker has died answers 409 for ever. Raises NotStartedError."""
        try:
            status = await self._health()
        except StartError as error:
            raise NotStartedError(str(error)) from error
        if status not in ("READY", "BUSY", "STARTING"):
            raise NotStartedError(f"the back-end is {status}")

    async def _follow(
        self, prediction_id: str, answer: RemoteResponse | None, report: Report
    ) -> Outcome:
        """From the first answer to how it ended."""
        known = ""
        poll_s = POLL_FIRST_S
        while True:
            if answer is None:
                answer = await self._what_became_of(prediction_id)
                if answer is None:
                    return answers.broken_off("the connection was lost")
            if answer.status == 303:
                answer = await self._redirected(answer)
                continue
            if answer.status not in (200, 202):
                return answers.of_answer(answer)
            p = answer.object()
            if not p:
                return answers.unreadable(answer.status)
            if (outcome := answers.of_prediction(p)) is not None:
                return answers.to_be_retried(outcome, answer.retry_after_s())
            logs = str(p.get("logs") or "")
            if len(logs) > len(known):
                report(LogText(logs[len(known) :]))
                known = logs
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.5, POLL_MAX_S)
            answer = None

    async def _what_became_of(self, prediction_id: str) -> RemoteResponse | None:
        """GET the prediction; None when it cannot be had. coglet itself has no such path."""
        if self._is_modal:
            return None
        try:
            answer = await self._http.ask_safely("GET", f"/predictions/{prediction_id}")
        except (NotSentError, BrokenOffError):
            return None
        return answer if answer.status == 200 else None

    async def _redirected(self, answer: RemoteResponse) -> RemoteResponse | None:
        """Where Modal sends whoever has waited 150 s: the same answer, asked for again."""
        url = urljoin(f"{self._http.base_url}/", answer.headers.get("Location", ""))
        if urlsplit(url)[:2] != urlsplit(self._http.base_url)[:2]:
            return RemoteResponse(502, {}, b"")  # our key is for the one origin only
        try:
            return await self._http.ask_safely("GET", url, timeout_s=MODAL_HOLDS_S + 30)
        except (NotSentError, BrokenOffError):
            return None


def _code(answer: RemoteResponse) -> str:
    error = answer.object().get("error")
    return str(error.get("code")) if isinstance(error, dict) else ""


def _schemas(document: Mapping[str, Json]) -> Mapping[str, Json]:
    components = document.get("components")
    schemas = components.get("schemas") if isinstance(components, dict) else None
    return schemas if isinstance(schemas, dict) else {}
