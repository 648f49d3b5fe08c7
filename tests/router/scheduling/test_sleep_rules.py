"""Who may use main memory for copies, and what each report of a sleep changes."""

from __future__ import annotations

import pytest

from router.scheduling import messages as msg
from router.scheduling.model import Model, Phase
from router.scheduling.queue import Waiter
from router.scheduling.scheduler import Policy, Scheduler
from router.scheduling.sleep_record import SMOOTHING
from router.scheduling.sleeping import (
    HostDecision,
    judge_copies,
    judge_host_overcommitment,
    note_report,
)
from tests.router.scheduling.test_eviction import NOW, POLICY, model


def copied(name: str, host: int, *, phase: Phase = Phase.ASLEEP, load_s: float = 5.0) -> Model:
    """A model whose copies take `host` bytes."""
    m = model(name, 10, phase=phase, load_s=load_s)
    m.can_sleep, m.host_bytes, m.wake_s = True, host, 1.0
    return m


def limit_of(m: Model) -> int | None:
    """What its copies may take while some are made."""
    return m.host_limit_bytes


def test_copies_may_grow() -> None:
    """By an eighth, and a small model by as much as a cache takes. Less would refuse it sleep for
    some MiB, and it would be stopped instead."""
    small, large = copied("small", 16), copied("large", 1600)
    small.growth_bytes = large.growth_bytes = 64
    assert (small.likely_host_bytes, large.likely_host_bytes) == (80, 1800)
    scheduler = Scheduler({"a": 1}, 1000, Policy(growth_bytes=64, default_footprint_bytes=16))
    assert scheduler.models["a"].likely_host_bytes == 80


def test_too_many_copies() -> None:
    """The coldest sleepers go, no more than are needed, and what leaves already counts."""
    cheap, costly = copied("cheap", 4, load_s=2.0), copied("costly", 4, load_s=60.0)
    awake, leaving = copied("awake", 4, phase=Phase.READY), copied("leaving", 4)
    models = [awake, costly, cheap]
    assert judge_host_overcommitment(models, 12, NOW) == ()
    assert judge_host_overcommitment(models, 11, NOW) == (cheap,)
    assert judge_host_overcommitment(models, 8, NOW) == (cheap,)
    assert judge_host_overcommitment(models, 7, NOW) == (cheap, costly)
    assert judge_host_overcommitment(models, 0, NOW) == (cheap, costly), "all that sleep"
    cheap.waiting.join(Waiter("a", "", 1, NOW))
    assert judge_host_overcommitment(models, 11, NOW) == (costly,)
    leaving.enter(Phase.STOPPING, NOW)
    assert judge_host_overcommitment([*models, leaving], 12, NOW) == ()
    assert judge_host_overcommitment([*models, leaving], 11, NOW) == (costly,)


def test_room_for_copies() -> None:
    """What the model has already is not asked for twice; sleepers go that cost less to lose."""
    m = copied("m", 3, phase=Phase.READY)
    cheap, costly = copied("cheap", 4, load_s=2.0), copied("costly", 4, load_s=600.0)
    models = [m, cheap, costly]

    def judge(need: int, budget: int) -> HostDecision:
        return judge_copies(m, need, models, budget, NOW)

    assert judge(5, 13) == HostDecision(fits=True)
    assert judge(5, 12) == HostDecision(stop=(cheap,))
    assert judge(7, 11) == HostDecision(stop=(cheap,)), "exactly enough"
    assert judge(7, 10) == HostDecision(), "it would not be enough"
    costly.enter(Phase.STOPPING, NOW)
    assert judge(7, 11) == HostDecision(wait=True), "exactly enough"
    assert judge(7, 10) == HostDecision(stop=(cheap,))


def test_a_sleep_changes_what_is_known() -> None:
    """Bytes and times are those of the last one, times an average."""
    m = copied("m", 3, phase=Phase.FALLING_ASLEEP)
    m.host_limit_bytes, m.refusals, m.sleep_refusal = 9, 2, "at work"
    note_report(m, msg.Slept("m", 1, 2, 8, 7, 3.0), POLICY, NOW)
    assert (m.phase, m.residue_bytes, m.freed_bytes, m.host_bytes) == (Phase.ASLEEP, 2, 8, 7)
    assert (m.sleep_s, limit_of(m), m.refusals, m.sleep_refusal) == (3.0, None, 0, "")
    assert m.staged
    m.enter(Phase.FALLING_ASLEEP, NOW)
    note_report(m, msg.Slept("m", 1, 2, 8, 7, 8.0), POLICY, NOW)
    assert m.sleep_s == pytest.approx(3.0 + SMOOTHING * 5.0)


def test_a_suspension_changes_what_is_known() -> None:
    """And a wake from there has its own average."""
    m = copied("m", 3, phase=Phase.FALLING_ASLEEP)
    for times, average in ((4.0, 4.0), (9.0, 4.0 + SMOOTHING * 5.0)):
        m.enter(Phase.FALLING_ASLEEP, NOW)
        m.to_suspend = True
        note_report(m, msg.Slept("m", 1, 0, 8, 7, times, 5), POLICY, NOW)
        assert (m.suspended, m.to_suspend, m.suspended_bytes) == (True, False, 5)
        assert m.held_host_bytes == 12
        assert m.suspend_s == pytest.approx(average)
        m.enter(Phase.WAKING, NOW)
        m.load_requested = True
        note_report(m, msg.Woke("m", 1, times, 10), POLICY, NOW)
        assert (m.phase, m.suspended, m.suspended_bytes, m.load_requested) == (
            Phase.READY,
            False,
            0,
            False,
        )
        assert m.resume_s == pytest.approx(average)
        assert m.wake_s == 1.0, "it was no wake by copies alone"


def test_refused_while_it_waits_to_sleep() -> None:
    """A copy that ends, or is refused, while a sleep waits for it leaves the sleep its room."""
    reports = (
        msg.Staged("m", 1, 6, 8),
        msg.SleepRefused("m", 1, "at work", again=True, staging=True),
    )
    for report in reports:
        for phase, left in ((Phase.FALLING_ASLEEP, 9), (Phase.READY, None)):
            m = copied("m", 3, phase=phase)
            m.host_limit_bytes = 9
            note_report(m, report, POLICY, NOW)
            assert (m.phase, limit_of(m)) == (phase, left)


def test_a_refusal_is_remembered() -> None:
    """Its reason is shown, the driver is not asked either, and it is asked again later."""
    m = copied("m", 3, phase=Phase.FALLING_ASLEEP)
    m.to_suspend, m.host_limit_bytes = True, 9
    note_report(m, msg.SleepRefused("m", 1, "at work", again=True), POLICY, NOW)
    assert (m.phase, m.sleep_refusal, m.refusals) == (Phase.READY, "at work", 1)
    assert (m.can_sleep, m.to_suspend, limit_of(m)) == (True, False, None)
    assert m.stage_after == NOW + POLICY.restage_s


def test_a_new_process_knows_nothing() -> None:
    """What its predecessor could says nothing of it; how much it held does."""
    m = copied("m", 3)
    m.staged = m.can_suspend = m.suspended = m.to_suspend = True
    m.suspended_bytes, m.refusals, m.host_limit_bytes, m.residue_bytes = 5, 2, 9, 2
    m.enter(Phase.STOPPED, NOW)
    assert not any((m.can_sleep, m.staged, m.can_suspend, m.suspended, m.to_suspend, m.refusals))
    assert (m.held_host_bytes, m.residue_bytes) == (0, 2)
