"""What must hold after every step, whatever happens: a random world against the scheduler.

The world performs effects as the real one does: after some time, sometimes in vain, in another
order. It keeps books of its own and compares every decision with them. Hypothesis drives it
rule by rule and shrinks what it finds; a random walk drives it for as many steps as
CALLME_PROPERTY_STEPS says. A step is one event that the scheduler handles.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from router.scheduling import messages as msg
from router.scheduling.model import GONE, Model, Phase
from router.scheduling.scheduler import Policy, Scheduler

pytestmark = pytest.mark.slow

STEPS = int(os.environ.get("CALLME_PROPERTY_STEPS", "100000"))
STEPS_PER_WORLD = 2000
MODELS = ("m0", "m1", "m2", "m3")
OWNERS = ("", "a", "b")
# With a world's loads, services and failures nobody comes near this, however the dice fall.
LONGEST_WAIT_S = 1000.0


@dataclass(slots=True)
class Proc:
    """A model's process, as the world knows it."""

    generation: int
    ready_at: float | None = None
    stopping: bool = False
    dead: bool = False
    sleep: str = ""  # "falling", "deep", "sinking" (the driver suspends it then), "rising"
    suspended: bool = False
    asked: tuple[bool, bool] = (False, False)  # the hook, the driver, by the last sleep
    no_driver: bool = False  # the driver has refused it
    problem: str = ""
    protected_s: float = 0.0  # since ready_at
    host: int = 0  # main memory that its copies take
    driver_host: int = 0  # and what the driver has moved there
    stage_limit: int = 0  # or may take before long, by a copy in idle time
    stage_ends: float = 0.0  # when that is done
    sleep_limit: int = 0  # the same for a sleep, which waits for it
    seen_free: bool = False  # what it freed has been measured

    @property
    def is_deep(self) -> bool:
        """It holds only what its sleep has left, or nothing."""
        return self.sleep in ("deep", "sinking")


@dataclass(slots=True)
class Running:
    """A run, as the world knows it. `ends` numbers the report that will end it."""

    model: str
    generation: int
    since: float
    ends: int
    withdrawn: bool = False


def random_policy(r: Random) -> Policy:
    """Any numbers, most of them short, so that everything happens in a few hundred steps."""
    return Policy(
        queue_limit=r.choice((2, 8)),
        idle_to_sleep_s=r.choice((5.0, 30.1, 300.0)),
        idle_to_stage_s=r.choice((0.1, 2.0)),
        restage_s=r.choice((1.0, 60.0)),
        asleep_to_stop_s=r.choice((1.0, 60.0, 3600.0)),
        min_residency_s=r.choice((0.1, 3.3, 10.0)),
        patience_s=r.choice((0.7, 15.0)),
        unhealthy_to_restart_s=r.choice((0.5, 15.0)),
        ageing_s=r.choice((1.0, 30.0)),
        backoff_max_s=r.choice((1.0, 20.0)),
        wait_out_backoff_s=r.choice((1.5, 10.0)),
        unknown_load_s=3.0,
    )


class World:
    """What is outside the scheduler. `random` decides how long things take and what fails."""

    def __init__(self, random: Random) -> None:
        self.random = r = random
        self.now = r.uniform(0, 1e6)
        self.steps = 0
        self.longest_wait_s = 0.0
        self.procs: dict[str, Proc] = {}
        self.waiting: dict[str, float] = {}  # since when
        self.model_of: dict[str, str] = {}
        # Since when the budget would hold the model.
        self.fits_since = dict.fromkeys(MODELS, 0.0)
        self.running: dict[str, Running] = {}
        self.ended: set[str] = set()
        self.submitted = 0
        self.draining = False
        self.due: list[tuple[float, int, msg.Event]] = []
        self.reports = 0
        self.told: deque[str] = deque(maxlen=30)
        self.policy = random_policy(r)
        self.footprints = {name: r.randint(1, 6) for name in MODELS}
        self.can_sleep = {name: r.random() < 0.8 for name in MODELS}
        self.can_suspend = {name: r.random() < 0.6 for name in MODELS}
        # What stays on the card asleep, and what cannot be measured there.
        self.residues = {name: r.randint(0, min(2, f - 1)) for name, f in self.footprints.items()}
        self.measures_residue = r.random() < 0.7
        self.full_budget = r.randint(max(self.footprints.values()), 12)
        self.host_budget = r.choice((0, 4, 9, 100, 100))
        self.scheduler = Scheduler(
            {name: r.randint(1, 3) for name in MODELS},
            self.full_budget,
            self.policy,
            host_budget_bytes=self.host_budget,
        )
        self.tell(msg.Measured(self.full_budget, self.footprints))

    # ---- what may happen -----------------------------------------------------------------

    def submit(self, model: str, owner: str, priority: int) -> None:
        """A prediction arrives."""
        prediction_id = str(self.submitted)
        self.submitted += 1
        self.waiting[prediction_id] = self.now
        self.model_of[prediction_id] = model
        patient = self.random.random() < 0.5
        self.tell(msg.Submitted(prediction_id, model, owner, priority, patient))

    def submit_again(self) -> None:
        """A prediction that waits or runs is submitted once more."""
        if known := [*self.waiting, *self.running]:
            self.tell(msg.Submitted(self.random.choice(known), self.random.choice(MODELS)))

    def withdraw(self) -> None:
        """Somebody no longer wants an answer."""
        if not (known := [*self.waiting, *self.running]):
            return
        prediction_id = self.random.choice(known)
        if prediction_id in self.waiting:
            del self.waiting[prediction_id]
            self.ended.add(prediction_id)
        else:
            self.running[prediction_id].withdrawn = True
        self.tell(msg.Withdrawn(prediction_id))

    def kill(self, model: str) -> None:
        """A ready process dies, and that is noticed sooner or later."""
        proc = self.procs.get(model)
        if proc is None or proc.ready_at is None or proc.stopping or proc.dead:
            return
        proc.dead = True
        self.report(self.random.uniform(0, 2), msg.Died(model, proc.generation, "killed"))
        self.end_runs(model, proc.generation)

    def sicken(self, model: str) -> None:
        """A process says that it is not well, or that it is well again; in its set-up too."""
        proc = self.procs.get(model)
        if proc is None or proc.stopping or proc.dead or proc.sleep:
            return
        proc.problem = "" if proc.problem else "its health check says no"
        self.tell(msg.HealthChanged(model, proc.generation, proc.problem))

    def measure(self, budget: int) -> None:
        """Another program takes memory or gives it back."""
        self.tell(msg.Measured(budget, self.footprints))

    def measure_host(self, budget: int) -> None:
        """Another program takes main memory or gives it back."""
        self.host_budget = budget
        self.tell(msg.Measured(self.scheduler.budget_bytes, {}, budget))

    def lie(self, model: str) -> None:
        """A report about an earlier start arrives late."""
        generation = self.scheduler.models[model].generation - 1
        event = self.random.choice(
            (
                msg.Ready(model, generation, 1.0, 1),
                msg.HealthChanged(model, generation, "late"),
                msg.StartFailed(model, generation, "late"),
                msg.Died(model, generation, "late"),
                msg.Stopped(model, generation),
                msg.Slept(model, generation, 1, 1, 1),
                msg.Staged(model, generation, 1, 1),
                msg.SleepRefused(model, generation, "late", again=True),
                msg.SleepFailed(model, generation),
                msg.Woke(model, generation, 1.0, 1),
                msg.Finished("gone", model, generation, 1.0),
                msg.Requeued("gone", model, generation),
            )
        )
        self.tell(event)

    def drain(self) -> None:
        """The router stops, with force after a while."""
        self.draining = True
        self.tell(msg.Draining())
        assert not self.waiting, self.picture()
        self.pass_time(self.random.choice((0.0, 1.0, 10.0)))
        self.tell(msg.Draining(force=True))
        self.submit(self.random.choice(MODELS), "", 1)
        self.run_dry()

    # ---- time ----------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Let time pass; reports and wake-ups happen when they are due."""
        until = self.now + seconds
        while self.next_moment() <= until:
            self.live_on()
        if until > self.now:
            self.tick_in_vain(until)

    def next_moment(self) -> float:
        """When something is due: a report, or the wake-up that the scheduler asked for."""
        wake = self.scheduler.next_wakeup(self.now)
        report = self.due[0][0] if self.due else float("inf")
        return report if wake is None else min(wake, report)

    def live_on(self) -> None:
        """Go to the next moment and let it happen."""
        at = self.next_moment()
        if at > self.now and self.random.random() < 0.1:
            self.tick_in_vain(self.random.uniform(self.now, at))
        self.now = max(self.now, at)
        if self.due and self.due[0][0] <= self.now:
            _, number, event = heapq.heappop(self.due)
            self.deliver(number, event)
        else:
            self.tell(msg.Tick())

    def tick_in_vain(self, at: float) -> None:
        """Before the announced wake-up a tick must not change anything."""
        if self.now < at < self.next_moment():
            self.now = at
            assert not self.tell(msg.Tick()), f"wake-up missed\n{self.picture()}"

    def run_dry(self) -> None:
        """Nothing new comes: everything must end, nothing be left waiting, all models sleep."""
        limit = self.steps + 5000
        while self.next_moment() != float("inf"):
            self.live_on()
            assert self.steps < limit, f"it never ends\n{self.picture()}"
        assert not self.waiting, f"something is left waiting\n{self.picture()}"
        assert not self.running, self.picture()
        assert not self.procs, self.picture()
        assert len(self.ended) == self.submitted, self.picture()

    # ---- reports -------------------------------------------------------------------------

    def report(self, after_s: float, event: msg.Event) -> int:
        """Something will be reported after a while. Returns its number."""
        self.reports += 1
        heapq.heappush(self.due, (self.now + after_s, self.reports, event))
        return self.reports

    def deliver(self, number: int, event: msg.Event) -> None:
        """Enter a report into the books, then tell it; drop one that has been overtaken."""
        match event:
            case msg.Ready() | msg.StartFailed():
                proc = self.procs.get(event.model)
                # A start that was told to stop may still report; the scheduler must not mind.
                if proc is not None and not proc.stopping:
                    if isinstance(event, msg.Ready):
                        proc.ready_at = self.now
                        proc.protected_s = self.policy.protection_s(event.load_s)
                    else:
                        del self.procs[event.model]
            case msg.Slept() | msg.Woke() | msg.Staged() | msg.SleepRefused():
                self.note_sleep(event)
            case msg.Stopped():
                del self.procs[event.model]
            case msg.Finished() | msg.Requeued():
                run = self.running.get(event.id)
                if run is None or run.ends != number:
                    return
                del self.running[event.id]
                if isinstance(event, msg.Finished):
                    self.ended.add(event.id)
                else:
                    self.waiting[event.id] = run.since
                self.tell(event)
                assert not (run.withdrawn and event.id in self.waiting), "withdrawn, waits again"
                return
            case _:
                pass
        self.tell(event)

    def note_sleep(self, event: msg.Slept | msg.Woke | msg.Staged | msg.SleepRefused) -> None:
        proc = self.procs.get(event.model)
        if proc is None or proc.generation != event.generation:
            return
        match event:
            case msg.Staged():
                proc.host, proc.stage_limit = event.host_bytes, 0
            case msg.SleepRefused() if event.staging:
                proc.stage_limit = 0
            case _ if proc.stopping:
                pass  # one that was told to stop meanwhile may still report
            case msg.SleepRefused():
                proc.sleep = "deep" if proc.sleep == "sinking" else ""
                proc.sleep_limit, proc.seen_free = 0, True
                proc.no_driver = proc.no_driver or not proc.asked[0]
            case msg.Slept():
                proc.sleep, proc.ready_at = "deep", self.now
                proc.host, proc.sleep_limit, proc.seen_free = event.host_bytes, 0, True
                proc.driver_host = event.suspended_bytes
                proc.suspended = event.suspended_bytes > 0
                proc.no_driver = proc.no_driver or (proc.asked[1] and not proc.suspended)
            case msg.Woke():
                proc.sleep, proc.ready_at = "", self.now
                proc.suspended, proc.driver_host = False, 0
                proc.protected_s = self.policy.protection_s(event.wake_s)

    def end_runs(self, model: str, generation: int) -> None:
        """The process is gone: its runs come back soon, some of them untouched."""
        for prediction_id, run in self.running.items():
            if (run.model, run.generation) == (model, generation):
                run.ends = self.report(
                    self.random.uniform(0, 3), self.vain_end(prediction_id, model, generation)
                )

    def vain_end(self, prediction_id: str, model: str, generation: int) -> msg.Event:
        if self.random.random() < 0.3:
            return msg.Requeued(prediction_id, model, generation)
        return msg.Finished(prediction_id, model, generation)

    # ---- effects -------------------------------------------------------------------------

    def tell(self, event: msg.Event) -> list[msg.Effect]:
        """One step: the scheduler handles an event; perform and check what it decides."""
        self.steps += 1
        if isinstance(event, msg.Measured):
            self.note_budget(event.budget_bytes)
        effects = self.scheduler.handle(event, self.now)
        self.told.append(f"{self.now:.3f} {event} -> {effects}")
        for effect in effects:
            match effect:
                case msg.Start():
                    self.start(effect)
                case msg.Stop():
                    self.stop(effect)
                case msg.Stage():
                    self.stage(effect)
                case msg.Sleep():
                    self.sleep(effect)
                case msg.Wake():
                    self.wake(effect)
                case msg.Run():
                    self.run(effect)
                case msg.Interrupt():
                    self.interrupt(effect)
                case msg.Drop():
                    assert effect.id in self.waiting, f"dropped {effect.id}\n{self.picture()}"
                    del self.waiting[effect.id]
                    self.ended.add(effect.id)
        self.check()
        return effects

    def start(self, e: msg.Start) -> None:
        assert e.model not in self.procs, f"started twice\n{self.picture()}"
        assert not self.draining, self.picture()
        self.procs[e.model] = Proc(e.generation)
        self.check_budget()
        load_s = self.random.uniform(0.1, 5)
        if self.random.random() < 0.1:
            self.report(load_s, msg.StartFailed(e.model, e.generation, "bad luck"))
        else:
            footprint = self.footprints[e.model]
            can_sleep = self.can_sleep[e.model]
            rungs = (can_sleep, self.can_suspend[e.model])
            self.report(load_s, msg.Ready(e.model, e.generation, load_s, footprint, *rungs))

    def note_budget(self, budget: int) -> None:
        for name, footprint in self.footprints.items():
            if footprint > budget:
                self.fits_since[name] = float("inf")
            elif self.fits_since[name] > self.now:
                self.fits_since[name] = self.now

    def waited_s(self, prediction_id: str, since: float) -> float:
        """How long it has waited, without the time when it could not but wait."""
        return self.now - max(since, self.fits_since[self.model_of[prediction_id]])

    def sleep(self, e: msg.Sleep) -> None:
        proc = self.procs[e.model]
        assert (proc.generation, proc.stopping, proc.suspended) == (e.generation, False, False)
        assert e.driver or e.hook, self.picture()
        assert not e.driver or (self.can_suspend[e.model] and not proc.no_driver), self.picture()
        assert not e.hook or (self.can_sleep[e.model] and not proc.sleep), self.picture()
        if proc.sleep:
            assert proc.sleep == "deep", self.picture()
        else:
            self.check_given_up(e.model, proc)
        proc.sleep = "sinking" if proc.sleep else "falling"
        proc.problem = ""  # what it said is forgotten
        proc.asked = (e.hook, e.driver)
        proc.sleep_limit, proc.seen_free = e.limit_bytes, proc.is_deep
        self.check_host(e.limit_bytes)
        event = self.end_of_sleep(e, proc)
        # It waits for a copy that is under way.
        self.report(max(proc.stage_ends - self.now, 0.0) + self.random.uniform(0, 2), event)

    def end_of_sleep(self, e: msg.Sleep, proc: Proc) -> msg.Event:
        """What the process or the driver makes of it."""
        dice = self.random.random()
        if proc.dead or dice < 0.1:
            return msg.SleepFailed(e.model, e.generation)
        if e.hook and dice < 0.3:
            return msg.SleepRefused(e.model, e.generation, "busy", again=dice < 0.25)
        footprint, residue = self.footprints[e.model], self.residues[e.model]
        freed = footprint - residue if e.hook or proc.is_deep else 0
        host = min(freed, e.limit_bytes) if e.hook else proc.host if proc.is_deep else 0
        held = footprint - freed
        suspends = (
            *(e.driver, self.measures_residue, self.random.random() < 0.8),
            *(held > 0, host + held <= e.limit_bytes),
        )
        if all(suspends):
            return msg.Slept(e.model, e.generation, 0, freed, host, dice, held)
        if not e.hook:
            return msg.SleepRefused(e.model, e.generation, "the driver will not")
        seen = residue if self.measures_residue else None
        return msg.Slept(e.model, e.generation, seen, freed, host, 0.1, 0, "no")

    def stage(self, e: msg.Stage) -> None:
        proc = self.procs[e.model]
        assert self.can_sleep[e.model], self.picture()
        assert (proc.generation, proc.stopping, proc.sleep) == (e.generation, False, "")
        assert not proc.stage_limit, f"staged twice\n{self.picture()}"
        assert sum(self.footprints.values()) > self.scheduler.budget_bytes, self.picture()
        proc.stage_limit = e.limit_bytes
        self.check_host(e.limit_bytes)
        freed = self.footprints[e.model] - self.residues[e.model]
        event: msg.Event = msg.Staged(e.model, e.generation, min(freed, e.limit_bytes), freed)
        if proc.dead or self.random.random() < 0.2:
            again = self.random.random() < 0.7
            event = msg.SleepRefused(e.model, e.generation, "busy", again, staging=True)
        after_s = self.random.uniform(0, 2)
        proc.stage_ends = self.now + after_s
        self.report(after_s, event)

    def check_host(self, limit: int) -> None:
        taken = sum(
            max(p.host + p.driver_host, p.stage_limit, p.sleep_limit) for p in self.procs.values()
        )
        assert limit > 0, self.picture()
        assert taken <= self.host_budget, f"over the budget of copies\n{self.picture()}"

    def wake(self, e: msg.Wake) -> None:
        proc = self.procs[e.model]
        assert (proc.generation, proc.stopping, proc.sleep) == (e.generation, False, "deep")
        assert not self.draining, self.picture()
        proc.sleep = "rising"
        self.check_budget()
        wake_s = self.random.uniform(0, 1)
        event: msg.Event = msg.Woke(e.model, e.generation, wake_s, self.footprints[e.model])
        if proc.dead or self.random.random() < 0.1:
            event = msg.Died(e.model, e.generation, "cannot be woken")
        self.report(wake_s, event)

    def check_budget(self) -> None:
        held = sum(
            0
            if proc.is_deep and proc.suspended
            else self.residues[n]
            if proc.is_deep
            else self.footprints[n]
            for n, proc in self.procs.items()
        )
        assert held <= self.scheduler.budget_bytes, f"over the budget\n{self.picture()}"
        asleep = [p for p in self.procs.values() if p.is_deep]
        assert all(p.seen_free for p in asleep), f"its memory was not seen free\n{self.picture()}"

    def check_given_up(self, model: str, proc: Proc) -> None:
        """Only a model that has been ready for a while and runs nothing loses its memory."""
        assert all(run.model != model for run in self.running.values() if not proc.dead)
        assert proc.ready_at is not None, self.picture()
        settled_at = proc.ready_at + proc.protected_s
        assert self.now >= settled_at, f"stopped too soon\n{self.picture()}"

    def stop(self, e: msg.Stop) -> None:
        proc = self.procs[e.model]
        assert (proc.generation, proc.stopping) == (e.generation, False), self.picture()
        if e.reason not in ("crashed", "forced"):
            # What is left of an earlier, crashed start does not keep a set-up from being given up.
            busy = [
                i
                for i, run in self.running.items()
                if run.model == e.model and (proc.ready_at or run.generation == e.generation)
            ]
            assert not busy, f"a busy model is stopped\n{self.picture()}"
        if e.reason in ("cannot sleep", "long asleep", "host memory"):
            assert proc.sleep in ("falling", "deep", "sinking"), self.picture()
        elif proc.sleep:
            assert e.reason not in ("idle", "unhealthy"), self.picture()
        elif e.reason == "unhealthy":
            assert proc.problem, self.picture()
        elif e.reason not in ("crashed", "forced", "shutdown"):
            self.check_given_up(e.model, proc)
        proc.stopping = True
        self.end_runs(e.model, e.generation)
        self.report(self.random.uniform(0, 3), msg.Stopped(e.model, e.generation))

    def run(self, e: msg.Run) -> None:
        proc = self.procs.get(e.model)
        assert proc is not None, self.picture()
        assert proc.ready_at is not None, self.picture()
        assert not proc.stopping, self.picture()
        assert not proc.sleep, self.picture()
        assert e.generation == proc.generation, self.picture()
        assert not proc.problem, f"run by one that is not well\n{self.picture()}"
        assert e.id not in self.running, f"run twice\n{self.picture()}"
        since = self.waiting.pop(e.id, None)
        assert since is not None, f"{e.id} does not wait\n{self.picture()}"
        self.longest_wait_s = max(self.longest_wait_s, self.waited_s(e.id, since))
        end: msg.Event = msg.Finished(e.id, e.model, e.generation, 1.0)
        after_s = self.random.uniform(0.01, 4)
        if proc.dead:  # the first to notice that the process is dead
            self.report(0, msg.Died(e.model, e.generation, "found dead"))
            end, after_s = msg.Requeued(e.id, e.model, e.generation), 0.0
        elif self.random.random() < 0.03:
            self.report(after_s, msg.Died(e.model, e.generation, "run killed it"))
            end = self.vain_end(e.id, e.model, e.generation)
        self.running[e.id] = Running(e.model, e.generation, since, self.report(after_s, end))

    def interrupt(self, e: msg.Interrupt) -> None:
        run = self.running[e.id]
        assert run.generation == e.generation, self.picture()
        assert run.withdrawn, self.picture()
        if self.random.random() < 0.7:
            run.ends = self.report(0.1, msg.Finished(e.id, e.model, e.generation))

    # ---- what must hold ------------------------------------------------------------------

    def check(self) -> None:
        waiting = running = 0
        for m in self.scheduler.models.values():
            waiting += len(m.waiting)
            running += len(m.running)
            self.check_model(m)
        assert waiting == len(self.waiting), f"lost or doubled\n{self.picture()}"
        assert running == len(self.running), f"lost or doubled\n{self.picture()}"
        if self.steps % 50 == 0:
            self.check_books()

    def check_model(self, m: Model) -> None:
        assert (m.phase not in GONE) == (m.name in self.procs), self.picture()
        proc = self.procs.get(m.name)
        assert m.holds_memory == (proc is not None and not proc.is_deep)
        assert m.phase is not Phase.READY or m.problem == (proc.problem if proc else "")
        if m.phase is Phase.READY and m.waiting and not m.draining and not m.problem:
            assert len(m.running) >= m.concurrency, f"{m.name} has a slot\n{self.picture()}"

    def check_books(self) -> None:
        models = self.scheduler.models.values()
        assert {w.id for m in models for w in m.waiting} == self.waiting.keys(), self.picture()
        assert {i for m in models for i in m.running} == self.running.keys(), self.picture()
        waited_s = max((self.waited_s(i, at) for i, at in self.waiting.items()), default=0.0)
        assert waited_s < LONGEST_WAIT_S, f"somebody starves\n{self.picture()}"
        again = self.scheduler.handle(msg.Tick(), self.now)
        assert not again, f"left undone: {again}\n{self.picture()}"
        for i in list(self.waiting)[:3]:
            standing = self.scheduler.standing(i, self.now)
            assert standing is not None
            assert standing.position >= 1
            assert 0 <= standing.eta_s < float("inf")

    def picture(self) -> str:
        """Everything, for a failing test."""
        lines = [*self.told, f"budget {self.scheduler.budget_bytes} {self.policy}"]
        lines += [repr(m) for m in self.scheduler.models.values()]
        return "\n".join([*lines, f"{self.procs}", f"{self.waiting}", f"{self.running}"])


# ---- hypothesis --------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Hypothesis chooses what happens and when."""

    world: World
    end_by_draining = False

    @initialize(seed=st.integers(0, 2**32), end_by_draining=st.booleans())
    def begin(self, seed: int, end_by_draining: bool) -> None:
        self.world = World(Random(seed))
        self.end_by_draining = end_by_draining

    @rule(
        model=st.sampled_from(MODELS),
        owner=st.sampled_from(OWNERS),
        priority=st.integers(0, 2),
        count=st.integers(1, 3),
    )
    def submit(self, model: str, owner: str, priority: int, count: int) -> None:
        for _ in range(count):
            self.world.submit(model, owner, priority)

    @rule()
    def submit_again(self) -> None:
        self.world.submit_again()

    @rule()
    def withdraw(self) -> None:
        self.world.withdraw()

    @rule(seconds=st.sampled_from((0.0, 0.5, 3.0, 10.0, 40.0, 400.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(model=st.sampled_from(MODELS))
    def kill(self, model: str) -> None:
        self.world.kill(model)

    @rule(model=st.sampled_from(MODELS))
    def sicken(self, model: str) -> None:
        self.world.sicken(model)

    @rule(budget=st.integers(0, 12))
    def measure(self, budget: int) -> None:
        self.world.measure(budget)

    @rule(budget=st.integers(0, 12))
    def measure_host(self, budget: int) -> None:
        self.world.measure_host(budget)

    @rule(model=st.sampled_from(MODELS))
    def warm(self, model: str) -> None:
        self.world.tell(msg.Warm(model))

    @rule(model=st.sampled_from(MODELS), parallel=st.integers(1, 4))
    def describe(self, model: str, parallel: int) -> None:
        self.world.tell(msg.Described(model, parallel))

    @rule(model=st.sampled_from(MODELS))
    def lie(self, model: str) -> None:
        self.world.lie(model)

    def teardown(self) -> None:
        if self.end_by_draining:
            self.world.drain()
        else:
            self.world.measure(self.world.full_budget)
            self.world.run_dry()


TestWhateverHappens = Machine.TestCase
TestWhateverHappens.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# ---- the random walk ---------------------------------------------------------------------


def walk(world: World, steps: int) -> None:
    """Let anything happen for so many steps."""
    r = world.random
    pressure = r.choice((0.2, 0.5, 0.8))
    while world.steps < steps:
        dice = r.random()
        if dice < pressure:
            world.submit(r.choice(MODELS), r.choice(OWNERS), r.randint(0, 2))
        elif dice < pressure + 0.02:
            act = r.choice((world.withdraw, world.submit_again))
            act()
        elif dice < pressure + 0.03:
            act_on = r.choice((world.kill, world.sicken, world.lie))
            act_on(r.choice(MODELS))
        elif dice < pressure + 0.04:
            world.tell(
                r.choice(
                    (
                        msg.Warm(r.choice(MODELS)),
                        msg.Described(r.choice(MODELS), r.randint(1, 4)),
                        msg.Measured(r.choice((world.full_budget, r.randint(0, 12)))),
                    )
                )
            )
        elif dice < pressure + 0.045:
            world.measure_host(r.choice((0, 3, 8, 100)))
        else:
            world.pass_time(r.expovariate(1 / r.choice((0.5, 5, 20))))


@pytest.mark.timeout(300 + STEPS // 2000)
def test_random_walk() -> None:
    """In worlds of all kinds, for CALLME_PROPERTY_STEPS steps, every invariant holds."""
    steps = number = 0
    longest_wait_s = 0.0
    while steps < STEPS:
        world = World(Random(number))
        walk(world, STEPS_PER_WORLD)
        if number % 2:
            world.drain()
        else:
            world.measure(world.full_budget)
            world.run_dry()
        steps += world.steps
        number += 1
        longest_wait_s = max(longest_wait_s, world.longest_wait_s)
    print(f"{steps} steps in {number} worlds, longest wait {longest_wait_s:.0f} s")
