"""A random world around the scheduler: it performs effects as the real one does, after some time,
sometimes in vain, in another order."""

from __future__ import annotations

import heapq
from random import Random

from router.scheduling import messages as msg
from tests.router.scheduling.world_books import MODELS, Books, Proc, Running


class World(Books):
    """What is outside the scheduler. `random` decides how long things take and what fails."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.tell(msg.Measured(self.full_budget, self.footprints))

    # ---- what may happen -----------------------------------------------------------------

    def submit(self, model: str, owner: str, priority: int) -> None:
        """A prediction arrives."""
        prediction_id = str(self.submitted)
        self.submitted += 1
        self.waiting[prediction_id] = self.now
        self.model_of[prediction_id] = model
        waits_out = self.random.random() < 0.5
        self.tell(msg.Submitted(prediction_id, model, owner, priority, waits_out))

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
        self.shutting_down = True
        self.tell(msg.RouterStopping())
        assert not self.waiting, self.picture()
        self.pass_time(self.random.choice((0.0, 1.0, 10.0)))
        self.tell(msg.RouterStopping(force=True))
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
        assert not self.shutting_down, self.picture()
        self.procs[e.model] = Proc(e.generation)
        self.check_budget()
        load_s = self.random.uniform(0.1, 5)
        if self.random.random() < 0.1:
            self.report(load_s, msg.StartFailed(e.model, e.generation, "bad luck"))
        else:
            footprint = self.footprints[e.model]
            can_sleep = self.can_sleep[e.model]
            levels = (can_sleep, self.can_suspend[e.model])
            self.report(load_s, msg.Ready(e.model, e.generation, load_s, footprint, *levels))

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

    def wake(self, e: msg.Wake) -> None:
        proc = self.procs[e.model]
        assert (proc.generation, proc.stopping, proc.sleep) == (e.generation, False, "deep")
        assert not self.shutting_down, self.picture()
        proc.sleep = "rising"
        self.check_budget()
        wake_s = self.random.uniform(0, 1)
        event: msg.Event = msg.Woke(e.model, e.generation, wake_s, self.footprints[e.model])
        if proc.dead or self.random.random() < 0.1:
            event = msg.Died(e.model, e.generation, "cannot be woken")
        self.report(wake_s, event)

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
