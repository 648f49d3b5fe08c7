"""The lives of predictions, from a face's request to its answer. The only writer of the store.

A synchronous prediction lives in memory and is gone with its answer; an asynchronous one is
on disk before `create` returns, and stays there for a day. One that outlasts its caller's
patience is made durable and goes on (`keep`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from router import errors
from router.clock import Clock, Timer, Timers
from router.errors import RouterError
from router.keys.key import Caller
from router.observability.facts import Observer, Observers
from router.prediction import (
    Failure,
    Job,
    LogText,
    MetricUpdate,
    Outcome,
    Prediction,
    Progress,
    Status,
    WebhookEvent,
    advance,
    conclude,
)
from router.predictions.failures import scrubbed
from router.predictions.in_flight import CANCELED, OVERDUE, TOO_LARGE, Live, Verdict, hopeless
from router.predictions.loop import SchedulerLoop
from router.predictions.output_files import Outputs
from router.predictions.output_links import Links
from router.predictions.overflow import Homes, Route
from router.predictions.persistence import Records
from router.predictions.webhooks import Webhooks
from router.scheduling import messages
from router.scheduling.outlook import Outlook
from router.secret_inputs import opened
from router.storage.store import Cursor, Files, Store


class Predictions:
    """Creates, runs, cancels and remembers predictions."""

    def __init__(
        self,
        loop: SchedulerLoop,
        store: Store,
        files: Files,
        clock: Clock,
        webhooks: Webhooks,
        *,
        time_limit_s: float,
        keep_results_s: float,
        timers: Timers | None = None,
        observer: Observer | None = None,
        routes: Mapping[str, Route] | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        self._loop = loop
        self._store = store
        self._files = files
        self._clock = clock
        self._webhooks = webhooks
        self._time_limit_s = time_limit_s
        failure = Failure(
            "deadline_exceeded", f"The prediction took longer than {time_limit_s:.0f} s"
        )
        self._too_long = Verdict(failure, Status.ABORTED, Status.FAILED)
        self.outputs = outputs or Outputs(files, "")
        self.links = Links(store, self.outputs, self.live)
        self._records = Records(
            store, files, clock, webhooks, keep_results_s, link=self.links.linked
        )
        self._timers = timers
        self._observer = observer or Observers()
        self._live: dict[str, Live] = {}
        self._claims: dict[str, asyncio.Future[None]] = {}
        outlook = Outlook(loop.scheduler)
        self.homes = Homes(loop.post, outlook, clock, self._call_later, routes)
        loop.jobs = self

    # ---- life ----------------------------------------------------------------------------

    async def open(self) -> Sequence[Prediction]:
        """Take up what an earlier run of the router had accepted; sweep regularly."""
        resumed = []
        now = self._clock.time()
        for p in await self._store.unfinished():
            if (verdict := hopeless(p, now)) is not None:
                status, failure = verdict
                ended = conclude(p, Outcome(status, failure=failure), now)
                await self._records.conclude(ended)
                self._observer.prediction_changed(ended)
                self._files.remove(p.files)
                continue
            waiting = advance(p, Status.STARTING, now) if p.status is Status.PROCESSING else p
            resumed.append(waiting)
            self._enter(waiting, accepted=True)
        self._records.open()
        return resumed

    async def close(self) -> None:
        """Finish every write. The loop must be closed before: it ends what runs."""
        await self._records.close()

    # ---- what the faces call -------------------------------------------------------------

    async def create(self, p: Prediction) -> Live:
        """Accept a prediction. Its files are the prediction's from here on, whatever happens.

        The answer follows it to its end. Raises the refusal (QueueFull, ModelUnavailable,
        ShuttingDown) if it was refused at once; then nothing of it is left. Raises IdConflict
        when a durable one's id is taken.
        """
        if p.durable:
            # A caller that is cancelled here leaves it accepted: the row may be on disk.
            try:
                if not await self._store.claim(p):
                    raise _id_is_taken(p.id)
            except RouterError:
                self._files.remove(p.files)
                raise
        live = self._enter(p)
        if live.dropped_with is not None:
            if p.durable:
                await self._store.delete(p.id)
            raise live.dropped_with
        return live

    async def create_once(
        self,
        prediction_id: str,
        model: str,
        digest: str,
        caller: Caller,
        make: Callable[[], Awaitable[Prediction]],
    ) -> Live | None:
        """Create what `make` returns, a durable prediction of that id, unless the id is known.

        None when it is, and was made by the same request: it runs or has run, and never runs
        again. Raises IdConflict when it was made by another, or for another caller, without a
        word of which; and whatever `make` and `create` raise. Of several such calls at once one
        makes it and the others find it.
        """
        while (claim := self._claims.get(prediction_id)) is not None:
            await asyncio.wait({claim})
        claim = self._claims[prediction_id] = asyncio.get_running_loop().create_future()
        try:
            known = await self._find(prediction_id)
            if known is None:
                return await self.create(await make())
            same = (known.model, known.digest) == (model, digest)
            if not same or not caller.may_see(known.owner):
                raise _id_is_taken(prediction_id)
            return None
        finally:
            del self._claims[prediction_id]
            claim.set_result(None)

    async def get(self, prediction_id: str, caller: Caller) -> Prediction:
        """The prediction now, as it is kept: `links` has the ways to show the files of its output.
        Raises UnknownPrediction, also for what the caller may not see."""
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
        limit: int = 100,
    ) -> Sequence[Prediction]:
        """The caller's durable predictions as they are now, newest first; see `Store.page`."""
        owner = caller.only_owner
        stored = await self._store.page(owner, before=before, after=after, limit=limit)
        return [live.present() if (live := self._live.get(p.id)) else p for p in stored]

    async def keep(self, prediction_id: str, caller: Caller) -> Prediction:
        """Make a running prediction durable: its caller will come back for it."""
        live = self._live.get(prediction_id)
        if live is None:
            return await self.get(prediction_id, caller)
        live.prediction = replace(live.prediction, durable=True)
        await self._store.put(live.prediction)
        return live.prediction

    def live(self, prediction_id: str) -> Live | None:
        """The prediction while it is on its way, None when it has ended or never was. The
        caller has been found to be allowed to see it (`get`), as for `cancel`."""
        return self._live.get(prediction_id)

    def cancel(self, prediction_id: str) -> None:
        """Withdraw it: at once if it waits, as soon as its model heeds it if it runs."""
        self._withdraw(prediction_id, CANCELED)

    def eta(self, prediction_id: str) -> tuple[int, float] | None:
        """Queue position (1 is next) and expected seconds until start, None if not waiting."""
        standing = self._loop.scheduler.standing(prediction_id, self._clock.monotonic())
        return (standing.position, standing.eta_s) if standing else None

    # ---- what the loop calls (router.predictions.loop.Jobs) -----------------------------------

    def started(self, prediction_id: str) -> Job:
        """Mark it processing and set its time limit."""
        live = self._live[prediction_id]
        p = advance(live.prediction, Status.PROCESSING, self._clock.time())
        home = self.homes.second_home(prediction_id)
        live.prediction = p if p.home == home else replace(p, home=home)
        live.wake_followers()
        self._records.note(live.prediction)
        self._observer.prediction_changed(live.prediction)
        live.timer = self._call_later(
            self._time_limit_s, self._withdraw, prediction_id, self._too_long
        )
        p = live.prediction
        if p.callback is not None:
            self._webhooks.notify(p, WebhookEvent.START)
        inputs, context = opened(p.inputs, p.secrets)
        return Job(p.id, inputs, p.files, p.via, context)

    def progressed(self, prediction_id: str, progress: Progress) -> None:
        """Keep what it has printed or put out, and tell whoever wants to know."""
        live = self._live.get(prediction_id)
        if live is None or live.prediction.status is not Status.PROCESSING:
            return  # the last line of its log may come after its outcome
        if not live.note(progress):
            self._withdraw(prediction_id, TOO_LARGE)
            return
        if live.prediction.callback is not None and not isinstance(progress, MetricUpdate):
            is_log = isinstance(progress, LogText)
            event = WebhookEvent.LOGS if is_log else WebhookEvent.OUTPUT
            if self._webhooks.wants(live.prediction, event):
                self._webhooks.notify(live.brief(), event)

    def handed_back(self, prediction_id: str) -> None:
        """It did not begin: it waits again, and the attempt does not count."""
        live = self._live[prediction_id]
        live.restart()
        live.stop_timer()
        p = advance(live.prediction, Status.STARTING, self._clock.time())
        attempts = p.attempts - 1
        live.prediction = replace(p, attempts=attempts, home=p.home if attempts else "")
        self._records.note(live.prediction)
        self._observer.prediction_changed(live.prediction)

    def finished(self, prediction_id: str, outcome: Outcome) -> float | None:
        """Write the outcome and wake whoever waits."""
        live = self._live[prediction_id]
        died = outcome.failure is not None and outcome.failure.code == "worker_died"
        if died and self._loop.scheduler.draining:
            if live.prediction.durable:
                self._suspend(live)
                return None
            outcome = replace(outcome, failure=Failure("shutting_down", "The server stopped"))
        outcome = live.with_progress(outcome)
        if outcome.metrics:
            outcome = live.with_bounded_metrics(outcome)
        if live.verdict is not None and outcome.status is not Status.SUCCEEDED:
            outcome = replace(outcome, status=live.verdict.running, failure=live.verdict.failure)
        if outcome.failure is not None and live.prediction.secrets:
            failure = scrubbed(outcome.failure, live.prediction.secrets)
            outcome = replace(outcome, failure=failure)
        self.homes.served(live.prediction)
        if live.prediction.callback is not None and outcome.status is Status.SUCCEEDED:
            self._tell_of_output(live, outcome)
        self._end(live, conclude(live.prediction, outcome, self._clock.time()))
        return outcome.predict_time_s if outcome.status is Status.SUCCEEDED else None

    def dropped(self, prediction_id: str, error: RouterError) -> None:
        """It never ran, and why."""
        live = self._live[prediction_id]
        if live.verdict is None and self.homes.refused(prediction_id, error):
            return
        if not live.accepted:
            live.dropped_with = error
            self._refuse(live, error.code)
            return
        if isinstance(error, errors.QueueFull):
            # Taken up after a restart, when all that ran before waits too: it is not lost.
            self._call_later(error.retry_after_s or 1.0, self._submit, prediction_id)
            return
        live.dropped_with = error
        if isinstance(error, errors.ShuttingDown) and live.prediction.durable:
            self._suspend(live)
            return
        if live.verdict is not None:  # withdrawn while it was handed back
            outcome = Outcome(live.verdict.waiting, failure=live.verdict.failure)
        else:
            failure = Failure(error.code, error.message, error.details, error.retry_after_s)
            outcome = Outcome(Status.FAILED, failure=failure)
        self._end(live, conclude(live.prediction, outcome, self._clock.time()))

    # ---- within --------------------------------------------------------------------------

    def _enter(self, p: Prediction, *, accepted: bool = False) -> Live:
        live = Live(p, asyncio.get_running_loop().create_future(), accepted=accepted)
        self._live[p.id] = live
        if p.deadline_at is not None:
            left_s = max(p.deadline_at - self._clock.time(), 0.0)
            live.deadline = self._call_later(left_s, self._withdraw, p.id, OVERDUE)
        self._submit(p.id)
        live.accepted = True
        if live.prediction.status is Status.STARTING and live.dropped_with is None:
            self._observer.prediction_changed(live.prediction)  # else a later step was told
        return live

    def _submit(self, prediction_id: str) -> None:
        if (live := self._live.get(prediction_id)) is not None:
            self.homes.submit(live.prediction)

    def _refuse(self, live: Live, code: str) -> None:
        self._observer.prediction_refused(live.prediction.model, code)
        live.stop_timers()
        self.homes.forget(live.prediction.id)
        del self._live[live.prediction.id]
        self._files.remove(live.prediction.files)
        live.end()

    async def _find(self, prediction_id: str) -> Prediction | None:
        live = self._live.get(prediction_id)
        return live.present() if live else await self._store.get(prediction_id)

    def _withdraw(self, prediction_id: str, why: Verdict) -> None:
        live = self._live.get(prediction_id)
        if live is None or live.verdict is not None:
            return
        live.verdict = why
        waiting = live.prediction.status is Status.STARTING
        self._loop.post(messages.Withdrawn(prediction_id))
        if waiting:
            outcome = Outcome(why.waiting, failure=why.failure)
            self._end(live, conclude(live.prediction, outcome, self._clock.time()))

    def _tell_of_output(self, live: Live, outcome: Outcome) -> None:
        """The output of a model that does not stream is there with its end only."""
        metrics = {**live.prediction.metrics, **outcome.metrics}
        p = replace(live.prediction, output=outcome.output, logs=outcome.logs, metrics=metrics)
        for event, has_come in (
            (WebhookEvent.OUTPUT, p.output is not None),
            (WebhookEvent.LOGS, bool(p.logs)),
        ):
            if has_come and p.callback is not None and event in p.callback.events:
                self._webhooks.notify(p, event, last=True)
                return  # either tells of both

    def _end(self, live: Live, p: Prediction) -> None:
        live.stop_timers()
        self.homes.forget(p.id)
        live.prediction = p
        self._observer.prediction_changed(p)
        self._files.remove(p.files)
        if p.durable:
            # Out of `_live` only when it is on disk, or a poller would not find it between.
            self._records.settle(p, lambda: self._live.pop(p.id, None))
        else:
            self._live.pop(p.id, None)
        live.end()

    def _suspend(self, live: Live) -> None:
        """Leave it as it is on disk: the next start of the router takes it up again."""
        live.stop_timers()
        self.homes.forget(live.prediction.id)
        del self._live[live.prediction.id]
        live.end()

    def _call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> Timer:
        timers: Timers = self._timers or asyncio.get_running_loop()
        return timers.call_later(delay_s, callback, *args)


def _id_is_taken(prediction_id: str) -> errors.IdConflict:
    """One message for all: whose it is, and what it was made of, is for nobody else."""
    return errors.IdConflict(f"Cannot create '{prediction_id}': the id is taken")
