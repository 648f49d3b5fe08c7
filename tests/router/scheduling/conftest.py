"""A scheduler with a clock in the test's hands, and words for what happens to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from router.errors import RouterError
from router.scheduling import messages as msg
from router.scheduling.model import Model, Phase
from router.scheduling.scheduler import OwnPolicy, Policy, Scheduler

LOAD_S = 4.0


class Story:
    """Tells a scheduler what happens; each word returns the effects that it led to.

    Models are `alpha`, `beta` and `gamma`; bytes are small numbers. The default policy has a
    budget for one model of the default size, so any two compete.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        budget: int = 10,
        most: int | None = None,
        concurrency: Mapping[str, int] | None = None,
        remote_models: Collection[str] = (),
        own_policies: Mapping[str, OwnPolicy] | None = None,
    ) -> None:
        self.now = 1000.0
        self.policy = policy or Policy(default_footprint_bytes=10)
        parallel = {"alpha": 1, "beta": 1, "gamma": 1} | dict(concurrency or {})
        self.scheduler = Scheduler(
            *(parallel, budget, self.policy, remote_models),
            most_bytes=most,
            own_policies=own_policies,
        )
        self.effects: list[msg.Effect] = []

    def tell(self, event: msg.Event) -> list[msg.Effect]:
        """Let something happen now. Every change of a phase is stamped with the time."""
        before = {m.name: m.phase for m in self.scheduler.models.values()}
        self.effects = self.scheduler.handle(event, self.now)
        for m in self.scheduler.models.values():
            assert m.phase is before[m.name] or m.phase_since == self.now, self.picture()
        return self.effects

    def wait(self, seconds: float) -> list[msg.Effect]:
        """Let time pass, then tick."""
        self.now += seconds
        return self.tell(msg.Tick())

    def wake(self) -> list[msg.Effect]:
        """Tick whenever the scheduler wants to be woken, until it does something."""
        for _ in range(10):
            at = self.scheduler.next_wakeup(self.now)
            assert at is not None, self.picture()
            if self.wait(at - self.now):
                return self.effects
        raise AssertionError(f"woken for nothing\n{self.picture()}")

    def submit(
        self,
        model: str,
        *ids: str,
        owner: str = "",
        priority: int = 1,
        waits_out_outages: bool = False,
    ) -> list[msg.Effect]:
        """Predictions arrive, all now."""
        effects = []
        for prediction_id in ids:
            effects += self.tell(
                msg.Submitted(prediction_id, model, owner, priority, waits_out_outages)
            )
        return effects

    def ready(
        self,
        model: str,
        *,
        load_s: float = LOAD_S,
        footprint: int | None = None,
        can_sleep: bool = False,
        can_suspend: bool = False,
    ) -> list[msg.Effect]:
        """The model's set-up is done, after `load_s`."""
        self.now += load_s
        held = self.model(model).need_bytes if footprint is None else footprint
        generation = self.model(model).generation
        return self.tell(msg.Ready(model, generation, load_s, held, can_sleep, can_suspend))

    def asleep(self, *models: str, residue: int = 0, can_suspend: bool = False) -> None:
        """Make models that can sleep resident, and have them fall asleep for want of work."""
        for name in models:
            self.tell(msg.Load(name))
            self.ready(name, can_sleep=True, can_suspend=can_suspend)
            assert self.wait(self.policy.idle_to_sleep_s) == [self.sleep(name, "idle")]
            self.slept(name, residue=residue)

    def sleep(
        self, model: str, reason: str, *, hook: bool = True, driver: bool = False
    ) -> msg.Effect:
        """The effect that puts it to sleep, with what it may take of main memory."""
        m = self.model(model)
        host = m.held_host_bytes or m.likely_host_bytes
        return msg.Sleep(model, m.generation, reason, host, hook=hook, driver=driver)

    def slept(self, model: str, *, residue: int | None = 0, host: int = 10) -> list[msg.Effect]:
        """It has fallen asleep."""
        m = self.model(model)
        freed = m.need_bytes - (residue or 0)
        return self.tell(msg.Slept(model, m.generation, residue, freed, host))

    def suspended(
        self, model: str, size: int, *, host: int = 10, seconds: float = 0.5
    ) -> list[msg.Effect]:
        """The driver has suspended it, after its sleep if it has copies (`host`)."""
        m = self.model(model)
        freed = m.need_bytes - size if host else 0
        return self.tell(msg.Slept(model, m.generation, 0, freed, host, seconds, size))

    def woke(self, model: str, *, wake_s: float = 0.5) -> list[msg.Effect]:
        """It is awake again, after `wake_s`."""
        self.now += wake_s
        m = self.model(model)
        return self.tell(msg.Woke(model, m.generation, wake_s, m.need_bytes))

    def resident(self, *models: str, footprint: int | None = None) -> None:
        """Make models resident and idle, and let them settle."""
        for name in models:
            assert msg.Start(name, self.model(name).generation + 1) in self.tell(msg.Load(name))
            self.ready(name, footprint=footprint)
        self.wait(self.policy.min_residency_s)

    def finish(self, *ids: str, service_s: float | None = 1.0) -> list[msg.Effect]:
        """Runs end, now."""
        effects = []
        for prediction_id in ids:
            model, generation = self.run_of(prediction_id)
            effects += self.tell(msg.Finished(prediction_id, model, generation, service_s))
        return effects

    def hand_back(self, prediction_id: str) -> list[msg.Effect]:
        """A run comes back untouched."""
        return self.tell(msg.Requeued(prediction_id, *self.run_of(prediction_id)))

    def die(self, model: str) -> list[msg.Effect]:
        """A ready process is found dead."""
        return self.tell(msg.Died(model, self.model(model).generation, "the worker died"))

    def stopped(self, model: str) -> list[msg.Effect]:
        """A process is gone and its memory free."""
        return self.tell(msg.Stopped(model, self.model(model).generation))

    def fail_start(self, model: str) -> list[msg.Effect]:
        """A set-up fails."""
        return self.tell(msg.StartFailed(model, self.model(model).generation, "no weights"))

    def model(self, name: str) -> Model:
        """The model's state, to be looked at."""
        return self.scheduler.models[name]

    def phase(self, name: str) -> Phase:
        """The model's phase."""
        return self.model(name).phase

    def waiting(self, name: str) -> list[str]:
        """Who waits for the model, next one first."""
        return [w.id for w in self.model(name).waiting.order(self.now)]

    def running(self, name: str) -> list[str]:
        """Who runs on the model."""
        return sorted(self.model(name).running)

    def run_of(self, prediction_id: str) -> tuple[str, int]:
        """The model and generation that a running prediction was granted to."""
        for m in self.scheduler.models.values():
            if run := m.running.get(prediction_id):
                return m.name, run.generation
        raise AssertionError(f"{prediction_id} does not run\n{self.picture()}")

    def dropped(self) -> dict[str, RouterError]:
        """What the last word dropped, and why."""
        return {e.id: e.error for e in self.effects if isinstance(e, msg.Drop)}

    def picture(self) -> str:
        """Everything, for a failing test."""
        lines = [f"now {self.now} budget {self.scheduler.budget_bytes} last {self.effects}"]
        for m in self.scheduler.models.values():
            lines.append(f"{m.name} {m.phase} since {m.phase_since} running {self.running(m.name)}")
            lines.append(f"  waiting {self.waiting(m.name)} retry_at {m.retry_at}")
        return "\n".join(lines)


@pytest.fixture
def story() -> Story:
    """One model fits at a time; every number is the default."""
    return Story()


@pytest.fixture
def roomy() -> Story:
    """All three models fit together."""
    return Story(budget=30)


@pytest.fixture
def hasty() -> Story:
    """Idle models sleep sooner than min_residency_s would have it."""
    return Story(Policy(idle_to_sleep_s=1.0, min_residency_s=10.0, default_footprint_bytes=10))
