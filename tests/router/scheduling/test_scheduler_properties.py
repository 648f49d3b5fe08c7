"""What must hold after every step, whatever happens: a random world against the scheduler.

The world performs effects as the real one does: after some time, sometimes in vain, in another
order. It keeps books of its own and compares every decision with them. Hypothesis drives it
rule by rule and shrinks what it finds; a random walk drives it for as many steps as
CALLME_PROPERTY_STEPS says. A step is one event that the scheduler handles.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from router.scheduling import messages as msg
from tests.router.scheduling.random_world import World
from tests.router.scheduling.world_books import MODELS

pytestmark = pytest.mark.slow

STEPS = int(os.environ.get("CALLME_PROPERTY_STEPS", "100000"))
STEPS_PER_WORLD = 2000
OWNERS = ("", "a", "b")


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
        self.world.tell(msg.Load(model))

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
                        msg.Load(r.choice(MODELS)),
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
