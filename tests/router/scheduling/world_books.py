"""The books of a random world: what it knows, and what must hold after every step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

from router.scheduling import messages as msg
from router.scheduling.model import GONE, Model, Phase
from router.scheduling.scheduler import Policy, Scheduler

MODELS = ("m0", "m1", "m2", "m3")
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


class Books:
    """What the world knows, and what must hold of it. `random` decides what a world is like."""

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
        self.shutting_down = False
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

    def note_budget(self, budget: int) -> None:
        for name, footprint in self.footprints.items():
            if footprint > budget:
                self.fits_since[name] = float("inf")
            elif self.fits_since[name] > self.now:
                self.fits_since[name] = self.now

    def waited_s(self, prediction_id: str, since: float) -> float:
        """How long it has waited, without the time when it could not but wait."""
        return self.now - max(since, self.fits_since[self.model_of[prediction_id]])

    def check_host(self, limit: int) -> None:
        taken = sum(
            max(p.host + p.driver_host, p.stage_limit, p.sleep_limit) for p in self.procs.values()
        )
        assert limit > 0, self.picture()
        assert taken <= self.host_budget, f"over the budget of copies\n{self.picture()}"

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
        evictable_at = proc.ready_at + proc.protected_s
        assert self.now >= evictable_at, f"stopped too soon\n{self.picture()}"

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
