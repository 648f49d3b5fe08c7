"""A back-end with Cog's HTTP API: another box of ours, a container of the package, or Modal.

A prediction has the same id there. After a lost connection the back-end is asked for it: another
box of ours knows the id and never runs it twice. Where nobody knows it, it is sent again under the
same id if the model is declared repeatable (`remote.repeatable`). A plain coglet may then run it
twice; the store still has one result.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from router.errors import DeadlineExceeded, NotFound
from router.models.process_interface import (
    MayHaveBegunError,
    NotStartedError,
    Report,
    StartError,
)
from router.prediction import Job, Json, LogText, Outcome
from router.remote import responses as answers
from router.remote.files import ByUrl, inline, with_files
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

log = logging.getLogger(__name__)

# Other clients use that machine too, so the router waits for a busy one.
BUSY_FIRST_S = 0.005
BUSY_MAX_S = 0.1
BUSY_CHECK_EVERY_S = 2.0
POLL_FIRST_S = 0.2
POLL_MAX_S = 2.0
PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 15.0
# Modal answers a web request that takes longer than this with a 303 to a URL that continues the
# wait: https://modal.com/docs/guide/webhook-timeouts
MODAL_HOLDS_S = 150.0
# How often a prediction that was cut off is sent again, and after how long. It goes to the next
# entry; when none is left, it waits in the queue.
SEND_AGAIN = 2
SEND_AGAIN_AFTER_S = 1.0
# The states of a Cog server that is started again by whatever looks after it.
RECOVERS = frozenset({"DEFUNCT", "UNHEALTHY"})
# The statuses with which a proxy answers when it has lost the server behind it.
CUT_OFF = frozenset({500, 502, 504})
# After these to a POST the prediction may still run there.
MAY_RUN = frozenset({202, *CUT_OFF})


class WasCanceledError(Exception):
    """The prediction was canceled, and must not be sent."""


class CutOffError(Exception):
    """The prediction may have begun, and no entry knows what became of it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class CogBackend:
    """Implements `router.remote.backend.Backend`.

    `start_timeout_s`: how long to wait for a server that is still in its set-up. `repeatable`: what
    may have begun may be sent again. `is_modal`: a request to Modal that finds all containers busy
    starts another one, which costs money. So the router does not ask for its health, and cancels by
    closing the connection. `by_url`: how large files travel, None when they are in requests.
    """

    def __init__(
        self,
        http: RemoteHttp,
        *,
        timeout_s: float,
        start_timeout_s: float,
        is_modal: bool = False,
        repeatable: bool = False,
        by_url: ByUrl | None = None,
    ) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._is_modal = is_modal
        self._repeatable = repeatable
        self._by_url = by_url
        self._canceled: dict[str, bool] = {}  # of each prediction at work, whether it was canceled

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # ---- availability ----------------------------------------------------------------------

    async def probe(self) -> None:
        """Wait until the server takes predictions. Raises StartError when it does not."""
        if self._is_modal:
            return
        give_up = time.monotonic() + self._start_timeout_s
        while True:
            status = await self._health()
            if status in ("READY", "BUSY"):
                return
            if status != "STARTING" or time.monotonic() > give_up:
                raise StartError(f"the back-end is {status}", outage=status in RECOVERS)
            await asyncio.sleep(PROBE_EVERY_S)

    async def _health(self) -> str:
        try:
            answer = await self._http.ask_safely("GET", "/health-check", timeout_s=PROBE_TIMEOUT_S)
        except (NotSentError, BrokenOffError) as error:
            raise StartError(f"the back-end cannot be reached: {error}", outage=True) from error
        if answer.status != 200:
            raise answers.start_error(answer)
        return str(answer.object().get("status") or "not a Cog server")

    async def schema(self) -> dict[str, Json]:
        """See `Backend.schema`."""
        try:
            answer = await self._http.ask_safely("GET", "/openapi.json")
        except (NotSentError, BrokenOffError) as error:
            raise StartError(f"its back-end cannot be reached: {error}") from error
        if answer.status == LOOP_DETECTED:
            raise StartError("its back-end leads back to this box")
        document = answer.object()
        if answer.status != 200 or "Input" not in _schemas(document):
            reason = f"its back-end answered {answer.status} to a request for its schema"
            raise StartError(reason, retry_after_s=answer.retry_after_s())
        return document

    # ---- predictions -----------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """See `Backend.predict`."""
        by_url = self._by_url
        as_input = functools.partial(by_url.as_input, job.id) if by_url else inline
        body: dict[str, Json] = {"id": job.id, "input": await with_files(job, as_input)}
        if by_url:
            body["files_url"] = by_url.outputs_url(job.id)
        if job.context:
            body["context"] = job.context
        self._canceled[job.id] = False
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._until_known(job.id, body, report)
        except WasCanceledError:
            return answers.canceled()
        except TimeoutError:
            await self.cancel(job.id)
            limit = f"{self._timeout_s:.0f} s"
            return answers.failed(DeadlineExceeded.code, f"The back-end took longer than {limit}")
        finally:
            del self._canceled[job.id]

    async def _until_known(
        self, prediction_id: str, body: Mapping[str, Json], report: Report
    ) -> Outcome:
        """Send it, and send it again when it was cut off, until its outcome is known. Raises what
        `predict` raises, and WasCanceledError."""
        give_up = time.monotonic() + self._timeout_s
        sent = 0
        while True:
            try:
                answer = await self._send(prediction_id, body, give_up)
            except NotStartedError as error:
                if not sent:
                    raise
                raise MayHaveBegunError(str(error)) from error
            if answer is not None and answer.status in answers.REFUSED:
                outcome = answers.refused(answer)
                if sent and outcome.failure is not None:
                    raise MayHaveBegunError(outcome.failure.message)
                return outcome
            if self._canceled[prediction_id] and (answer is None or answer.status in MAY_RUN):
                await self.cancel(prediction_id)  # the first may have come before the prediction
            try:
                return await self._follow(prediction_id, answer, report)
            except CutOffError as cut_off:
                if self._canceled[prediction_id]:
                    raise WasCanceledError from cut_off
                if not self._repeatable or sent == SEND_AGAIN:
                    return cut_off.outcome
            sent += 1
            log.warning("sent again", extra={"prediction": prediction_id})
            await asyncio.sleep(SEND_AGAIN_AFTER_S)

    async def cancel(self, prediction_id: str) -> bool:
        """See `Backend.cancel`. Modal is not asked, as a request may cost money."""
        if self._is_modal:
            return False
        if prediction_id in self._canceled:
            self._canceled[prediction_id] = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._http.tell_all(f"/predictions/{prediction_id}/cancel")
        return True

    async def abandon(self, prediction_id: str) -> None:
        """Let it run: another box of ours is asked for it again by the same id, and would answer
        that it was canceled."""

    async def _send(
        self, prediction_id: str, body: Mapping[str, Json], give_up: float
    ) -> RemoteResponse | None:
        """POST until the back-end accepts or refuses it. Returns the response; None when the
        connection was lost. Raises WasCanceledError instead of sending what was canceled."""
        delays = retry_delays()
        busy_s = BUSY_FIRST_S
        check_at = time.monotonic() + BUSY_CHECK_EVERY_S
        while True:
            if self._canceled[prediction_id]:
                raise WasCanceledError
            try:
                answer = await self._http.ask("POST", "/predictions", json=body)
            except NotSentError as error:
                if (delay_s := next(delays, None)) is None:
                    raise NotStartedError(f"the back-end cannot be reached: {error}") from error
            except BrokenOffError:
                return None
            else:
                if answer.status == 409 and _code(answer) != "id_conflict":
                    # Its only slot is used by another client, or is not free again yet.
                    delay_s = busy_s
                    busy_s = min(busy_s * 2, BUSY_MAX_S)
                    if time.monotonic() > check_at:
                        await self._check_alive()
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

    async def _check_alive(self) -> None:
        """Raises NotStartedError when the server is dead: a coglet whose worker has died answers
        409 without a limit."""
        try:
            status = await self._health()
        except StartError as error:
            raise NotStartedError(str(error)) from error
        if status not in ("READY", "BUSY", "STARTING"):
            raise NotStartedError(f"the back-end is {status}")

    async def _follow(
        self, prediction_id: str, answer: RemoteResponse | None, report: Report
    ) -> Outcome:
        """Poll from the first response to the end of the prediction. Raises CutOffError."""
        known = ""
        poll_s = POLL_FIRST_S
        while True:
            if answer is None:
                answer = await self._poll(prediction_id)
                if answer is None:
                    raise CutOffError(answers.broken_off("the connection was lost"))
            if answer.status in CUT_OFF:
                known_there = await self._poll(prediction_id)
                if known_there is None:
                    raise CutOffError(answers.of_answer(answer))
                answer = known_there
            if answer.status == 303:
                answer = await self._redirected(answer)
                continue
            if answer.status not in (200, 202):
                return answers.of_answer(answer)
            p = answer.object()
            if not p:
                return answers.unreadable(answer.status)
            if (outcome := answers.of_prediction(p)) is not None:
                if self._by_url and p.get("files"):
                    return await self._with_files(self._by_url, prediction_id, p)
                return answers.to_be_retried(outcome, answer.retry_after_s())
            logs = str(p.get("logs") or "")
            if len(logs) > len(known):
                report(LogText(logs[len(known) :]))
                known = logs
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.5, POLL_MAX_S)
            answer = None

    @staticmethod
    async def _with_files(by_url: ByUrl, prediction_id: str, p: Mapping[str, Json]) -> Outcome:
        """The outcome with the output files that were sent to the router."""
        try:
            output = await by_url.with_data_uris(prediction_id, p.get("output"), p["files"])
        except NotFound as error:
            return answers.failed(answers.BACKEND_FAILED, f"The back-end answered: {error}")
        return answers.of_prediction(p, output) or answers.unreadable(200)

    async def _poll(self, prediction_id: str) -> RemoteResponse | None:
        """GET the prediction from the entry that knows it; None when none does. A plain coglet has
        no such path."""
        if self._is_modal:
            return None
        try:
            path = f"/predictions/{prediction_id}"
            answer = await self._http.ask_safely("GET", path, known_to_one=True)
        except (NotSentError, BrokenOffError):
            return None
        return answer if answer.status == 200 else None

    async def _redirected(self, answer: RemoteResponse) -> RemoteResponse | None:
        """Follow Modal's redirect after a wait of 150 s, to continue the wait for the same
        response; None when the connection was lost."""
        url = urljoin(f"{self._http.base_url}/", answer.headers.get("Location", ""))
        if urlsplit(url)[:2] != urlsplit(self._http.base_url)[:2]:
            return RemoteResponse(502, {}, b"")  # the key must not be sent to another origin
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
