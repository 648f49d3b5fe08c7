"""The life of a prediction, from the API's request to the response: accepted, started, ended.

It decides when a prediction is on disk, and when its files are deleted (`_end`, `_refuse`). Only
this module and its `persistence` write predictions to the store.

A synchronous prediction is only in memory, and is deleted when it has been answered. An
asynchronous one is durable: it is on disk before `create` returns, and is kept there for
`keep_results_s`, by default a day. A synchronous one that takes too long for its caller is made
durable and goes on (`keep`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from router import errors
from router.clock import Clock, Timer, Timers
from router.errors import RouterError
from router.keys.key import Caller
from router.observability.facts import Facts, PredictionChanged, PredictionEnded, PredictionRefused
from router.prediction import (
    Failure,
    Job,
    Outcome,
    Prediction,
    Progress,
    Status,
    WebhookEvent,
    advance,
    conclude,
    job_of,
    model_of,
)
from router.predictions.failure_details import log_location, scrubbed
from router.predictions.in_flight import (
    CANCELED,
    OVERDUE,
    TOO_LARGE,
    EndReason,
    InFlight,
    hopeless,
    too_long,
)
from router.predictions.output_files import Outputs
from router.predictions.output_links import Links
from router.predictions.overflow import Overflow, OverflowRule
from router.predictions.persistence import Persistence
from router.predictions.scheduler_loop import Jobs, SchedulerLoop
from router.predictions.webhook_events import notify_of_output, notify_of_progress
from router.predictions.webhooks import Webhooks
from router.predictions.worker_death import BROKEN_OFF, STOPPED, may_begin_again, worker_died
from router.scheduling import messages
from router.storage.spool import size_of
from router.storage.store import Cursor, Files, Store


class Predictions:
    """Creates, runs, cancels and finds predictions."""

    def __init__(
        self,
        make_loop: Callable[[Jobs], SchedulerLoop],
        store: Store,
        files: Files,
        clock: Clock,
        webhooks: Webhooks,
        *,
        time_limit_s: float,
        time_limits_s: Mapping[str, float],
        keep_results_s: float,
        outputs: Outputs,
        timers: Timers | None = None,
        facts: Facts | None = None,
        rules: Mapping[str, OverflowRule] | None = None,
    ) -> None:
        self.loop = make_loop(self)
        self._store = store
        self._files = files
        self._clock = clock
        self._webhooks = webhooks
        self._time_limit_s = time_limit_s
        self._time_limits_s = time_limits_s
        self.outputs = outputs
        self.links = Links(store, self.outputs, self.in_flight)
        self._persistence = Persistence(store, clock, webhooks, keep_results_s, links=self.links)
        self._timers = timers
        self._facts = facts or Facts()
        self._in_flight: dict[str, InFlight] = {}
        self._claims: dict[str, asyncio.Future[None]] = {}
        self.overflow = Overflow(
            self.loop.post, self.loop.scheduler, clock, self._call_later, rules
        )

    # ---- life ----------------------------------------------------------------------------

    async def open(self) -> Sequence[Prediction]:
        """Submit what an earlier run of the router had accepted, and start the regular sweep.
        Returns the predictions that were submitted."""
        resumed = []
        now = self._clock.time()
        for p in await self._store.unfinished():
            if (end_reason := hopeless(p, now)) is not None:
                status, failure = end_reason
                ended = conclude(p, Outcome(status, failure=failure), now)
                await self._persistence.conclude(ended)
                self._tell_end(ended)
                self._files.remove(p.files)
                continue
            waiting = advance(p, Status.STARTING, now) if p.status is Status.PROCESSING else p
            resumed.append(waiting)
            self._enter(waiting, accepted=True)
        self._persistence.open()
        return resumed

    async def close(self) -> None:
        """Finish every write. Close the loop first: it ends what runs."""
        await self._persistence.close()

    # ---- for the APIs --------------------------------------------------------------------

    async def create(self, p: Prediction) -> InFlight:
        """Accept a prediction. From here on its files belong to it, also when it is refused.

        Returns its state, to wait for its end. Raises the refusal (QueueFull, ModelUnavailable or
        ShuttingDown) when it is refused at once; then nothing of it is kept. Raises IdConflict when
        it is durable and its id is taken, and InsufficientStorage when the disk is full."""
        if p.durable:
            # A caller cancelled here leaves it accepted: its row may be on disk.
            try:
                if not await self._store.claim(p):
                    raise _id_is_taken(p.id)
            except RouterError:
                self._files.remove(p.files)
                raise
        in_flight = self._enter(p)
        if in_flight.dropped_with is not None:
            if p.durable:
                await self._store.delete(p.id)
            raise in_flight.dropped_with
        return in_flight

    async def create_once(
        self,
        prediction_id: str,
        model: str,
        digest: str,
        caller: Caller,
        make: Callable[[], Awaitable[Prediction]],
    ) -> InFlight | None:
        """Create what `make` returns, a durable prediction of that id, unless the id is known.

        Returns None when the id is known and was created by the same request: that prediction runs
        or has run, and does not run again. Raises IdConflict when another request or another caller
        created it; the message does not say which. Raises what `make` and `create` raise. Of
        several such calls at the same time, one creates the prediction and the others find it.
        """
        while (claim := self._claims.get(prediction_id)) is not None:
            await asyncio.wait({claim})
        claim = self._claims[prediction_id] = asyncio.get_running_loop().create_future()
        try:
            known = await self._find(prediction_id)
            if known is None:
                return await self.create(await make())
            same = (model_of(known.model), known.digest) == (model_of(model), digest)
            if not same or not caller.may_see(known.owner):
                raise _id_is_taken(prediction_id)
            return None
        finally:
            del self._claims[prediction_id]
            claim.set_result(None)

    async def get(self, prediction_id: str, caller: Caller) -> Prediction:
        """The prediction now, as it is stored; `links` makes the forms that APIs show.
        Raises UnknownPrediction when there is none, or when the caller may not see it."""
        p = await self._find(prediction_id)
        if p is None or not caller.may_see(p.owner):
            raise errors.UnknownPrediction(f"Cannot find prediction '{prediction_id[:80]}'")
        return p

    async def page(
        self,
        caller: Caller,
        *,
        before: Cursor | None = None,
        after: Cursor | None = None,
        limit: int,
    ) -> Sequence[Prediction]:
        """The caller's durable predictions as they are now, newest first; see `Store.page`."""
        owner = caller.only_owner
        stored = await self._store.page(owner, before=before, after=after, limit=limit)
        return [
            in_flight.present() if (in_flight := self._in_flight.get(p.id)) else p for p in stored
        ]

    async def keep(self, prediction_id: str, caller: Caller) -> Prediction:
        """Make a running prediction durable: its caller will ask for the result later. Raises
        UnknownPrediction as `get` does, and InsufficientStorage."""
        in_flight = self._in_flight.get(prediction_id)
        if in_flight is None:
            return await self.get(prediction_id, caller)
        in_flight.prediction = replace(in_flight.prediction, durable=True)
        await self._store.put(in_flight.prediction)
        return in_flight.prediction

    def in_flight(self, prediction_id: str) -> InFlight | None:
        """The prediction's state until it has ended; None after that, and for an unknown id. Check
        first with `get` that the caller may see it. The same holds for `cancel`."""
        return self._in_flight.get(prediction_id)

    def cancel(self, prediction_id: str) -> None:
        """Cancel the prediction: at once if it waits; when its model reacts if it runs."""
        self._withdraw(prediction_id, CANCELED)

    def eta(self, prediction_id: str) -> tuple[int, float] | None:
        """Queue position (1 is next) and expected seconds until start, None if not waiting."""
        standing = self.loop.scheduler.standing(prediction_id, self._clock.monotonic())
        return (standing.position, standing.eta_s) if standing else None

    # ---- for the loop (router.predictions.scheduler_loop.Jobs) ---------------------------

    def started(self, prediction_id: str) -> Job:
        """Mark it processing and set its time limit."""
        in_flight = self._in_flight[prediction_id]
        p = advance(in_flight.prediction, Status.PROCESSING, self._clock.time())
        remote = self.overflow.remote_of(prediction_id)
        p = in_flight.prediction = p if p.remote_name == remote else replace(p, remote_name=remote)
        in_flight.wake_followers()
        self._persistence.note(p)
        self._facts.tell(PredictionChanged(p))
        limit_s = self._time_limits_s.get(p.model, self._time_limit_s)
        in_flight.timer = self._call_later(limit_s, self._withdraw, p.id, too_long(limit_s))
        if p.callback is not None:
            self._webhooks.notify(p, WebhookEvent.START)
        return job_of(p)

    def progressed(self, prediction_id: str, progress: Progress) -> None:
        """Add to its log, output or metrics; wake followers and send a webhook if one is due."""
        in_flight = self._in_flight.get(prediction_id)
        if in_flight is None or in_flight.prediction.status is not Status.PROCESSING:
            return  # the last line of its log may come after its outcome
        if not in_flight.note(progress):
            self._withdraw(prediction_id, TOO_LARGE)
            return
        notify_of_progress(self._webhooks, in_flight, progress)

    def handed_back(self, prediction_id: str, *, may_have_begun: bool) -> bool:
        """Mark it waiting again and return True. The attempt counts if it may have begun, unless
        the router shuts down. After the last attempt it fails, and this returns False: the
        prediction may be what takes its remote down."""
        in_flight = self._in_flight[prediction_id]
        counts = may_have_begun and not self.loop.scheduler.shutting_down
        if not may_begin_again(in_flight.prediction.attempts, counts=counts):
            self.finished(prediction_id, BROKEN_OFF)
            return False
        in_flight.restart()
        in_flight.stop_timer()
        p = advance(in_flight.prediction, Status.STARTING, self._clock.time())
        attempts = p.attempts if counts else p.attempts - 1
        remote_name = p.remote_name if attempts or may_have_begun else ""
        in_flight.prediction = replace(p, attempts=attempts, remote_name=remote_name)
        self._persistence.note(in_flight.prediction)
        self._facts.tell(PredictionChanged(in_flight.prediction))
        return True

    def finished(self, prediction_id: str, outcome: Outcome) -> float | None:
        """Store the outcome and wake all waiters. If its remote refused it for now, it waits
        again."""
        in_flight = self._in_flight[prediction_id]
        if (again_s := in_flight.try_again_s(outcome)) is not None:
            self.handed_back(prediction_id, may_have_begun=False)
            self._call_later(again_s, self._submit, prediction_id)
            return None
        if worker_died(outcome) and self.loop.scheduler.shutting_down:
            if in_flight.prediction.durable:
                self._leave_for_restart(in_flight)
                return None
            outcome = replace(outcome, failure=STOPPED)
        outcome = in_flight.with_progress(outcome)
        log_location(in_flight.prediction, outcome)
        if outcome.metrics:
            outcome = in_flight.with_bounded_metrics(outcome)
        why = in_flight.end_reason
        if why is not None and outcome.status is not Status.SUCCEEDED:
            outcome = replace(outcome, status=why.running, failure=why.failure)
        if outcome.failure is not None and in_flight.prediction.secrets:
            failure = scrubbed(outcome.failure, in_flight.prediction.secrets)
            outcome = replace(outcome, failure=failure)
        self.overflow.served(in_flight.prediction)
        notify_of_output(self._webhooks, in_flight.prediction, outcome)
        self._end(in_flight, conclude(in_flight.prediction, outcome, self._clock.time()))
        return outcome.predict_time_s if outcome.status is Status.SUCCEEDED else None

    def dropped(self, prediction_id: str, error: RouterError) -> None:
        """Send it to its other target if it has one; else end it with the error."""
        in_flight = self._in_flight[prediction_id]
        if in_flight.end_reason is None and self.overflow.refused(prediction_id, error):
            return
        if not in_flight.accepted:
            in_flight.dropped_with = error
            self._refuse(in_flight, error.code)
            return
        if isinstance(error, errors.QueueFull):
            # It was accepted before a restart, after which what ran waits too. It is submitted
            # later.
            self._call_later(error.retry_after_s or 1.0, self._submit, prediction_id)
            return
        in_flight.dropped_with = error
        if isinstance(error, errors.ShuttingDown) and in_flight.prediction.durable:
            self._leave_for_restart(in_flight)
            return
        if in_flight.end_reason is not None:  # withdrawn while it was handed back
            outcome = Outcome(in_flight.end_reason.waiting, failure=in_flight.end_reason.failure)
        else:
            failure = Failure(error.code, error.message, error.details, error.retry_after_s)
            outcome = Outcome(Status.FAILED, failure=failure)
        self._end(in_flight, conclude(in_flight.prediction, outcome, self._clock.time()))

    # ---- internal ------------------------------------------------------------------------

    def _enter(self, p: Prediction, *, accepted: bool = False) -> InFlight:
        in_flight = InFlight(p, asyncio.get_running_loop().create_future(), accepted=accepted)
        self._in_flight[p.id] = in_flight
        if p.deadline_at is not None:
            left_s = max(p.deadline_at - self._clock.time(), 0.0)
            in_flight.deadline = self._call_later(left_s, self._withdraw, p.id, OVERDUE)
        self._submit(p.id)
        in_flight.accepted = True
        if in_flight.prediction.status is Status.STARTING and in_flight.dropped_with is None:
            # Otherwise `_submit` has reported a later step.
            self._facts.tell(PredictionChanged(in_flight.prediction))
        return in_flight

    def _submit(self, prediction_id: str) -> None:
        if (in_flight := self._in_flight.get(prediction_id)) is not None:
            self.overflow.submit(in_flight.prediction)

    def _refuse(self, in_flight: InFlight, code: str) -> None:
        self._facts.tell(PredictionRefused(in_flight.prediction.model, code))
        in_flight.stop_timers()
        self.overflow.forget(in_flight.prediction.id)
        del self._in_flight[in_flight.prediction.id]
        self._files.remove(in_flight.prediction.files)
        in_flight.end()

    async def _find(self, prediction_id: str) -> Prediction | None:
        in_flight = self._in_flight.get(prediction_id)
        return in_flight.present() if in_flight else await self._store.get(prediction_id)

    def _withdraw(self, prediction_id: str, why: EndReason) -> None:
        in_flight = self._in_flight.get(prediction_id)
        if in_flight is None or in_flight.end_reason is not None:
            return
        in_flight.end_reason = why
        waiting = in_flight.prediction.status is Status.STARTING
        self.loop.post(messages.Withdrawn(prediction_id))
        if waiting:
            outcome = Outcome(why.waiting, failure=why.failure)
            self._end(in_flight, conclude(in_flight.prediction, outcome, self._clock.time()))

    def _end(self, in_flight: InFlight, p: Prediction) -> None:
        in_flight.stop_timers()
        self.overflow.forget(p.id)
        in_flight.prediction = p
        self._tell_end(p)
        self._files.remove(p.files)
        if p.durable:
            # It stays in `_in_flight` until it is on disk, so that a client that polls always finds
            # it.
            self._persistence.write_result(p, lambda: self._in_flight.pop(p.id, None))
        else:
            self._in_flight.pop(p.id, None)
        in_flight.end()

    def _tell_end(self, p: Prediction) -> None:
        self._facts.tell(PredictionChanged(p))
        self._facts.tell(PredictionEnded(p, size_of(p.files)))

    def _leave_for_restart(self, in_flight: InFlight) -> None:
        """Forget it here and leave its row on disk unchanged: the next start of the router submits
        it again."""
        in_flight.stop_timers()
        self.overflow.forget(in_flight.prediction.id)
        del self._in_flight[in_flight.prediction.id]
        in_flight.end()

    def _call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> Timer:
        timers: Timers = self._timers or asyncio.get_running_loop()
        return timers.call_later(delay_s, callback, *args)


def _id_is_taken(prediction_id: str) -> errors.IdConflict:
    """The same message in each case: it tells another caller neither the owner nor the inputs."""
    return errors.IdConflict(f"Cannot create '{prediction_id}': the id is taken")
