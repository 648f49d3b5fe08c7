"""The rules of sleep: what a report of a sleeping process changes, and who may use main memory for
copies. Pure functions over the models' present state.

The memory of a model that sleeps is copied to main memory, which is limited too. When the copies of
another model do not fit, sleepers whose sleep is worth less are stopped for them. If these are not
enough, that model is stopped instead of put to sleep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.scheduling import messages as msg
from router.scheduling.model import GONE, Model, Phase
from router.scheduling.tunables import Policy

Report = msg.Staged | msg.Slept | msg.SleepRefused | msg.Woke


@dataclass(frozen=True, slots=True)
class HostDecision:
    """Whether the copies of a model have room. If not: stop `stop` first and decide again. `wait`:
    others are being stopped already. When `stop` is empty and `wait` is false too, the model cannot
    sleep."""

    fits: bool = False
    wait: bool = False
    stop: tuple[Model, ...] = ()


def note_report(m: Model, e: Report, policy: Policy, now: float) -> None:
    """Change the model as its process reports. A report that comes after its phase has ended
    changes nothing."""
    if m.phase in GONE:
        return
    match e:
        case msg.Staged():
            m.note_copies(e.host_bytes, e.freed_bytes)
            # If it falls asleep by now, its sleep may copy more.
            m.end_copying(unless=Phase.FALLING_ASLEEP)
        case msg.SleepRefused() if e.staging:
            m.note_refusal(e.reason, now + policy.restage_s, again=e.again)
            m.end_copying(unless=Phase.FALLING_ASLEEP)
        case msg.Slept() if m.phase is Phase.FALLING_ASLEEP:
            _note_slept(m, e)
            m.end_copying()
            m.enter(Phase.ASLEEP, now)
        case msg.SleepRefused() if m.phase is Phase.FALLING_ASLEEP:
            if m.holds_memory and m.can_sleep:
                m.note_refusal(e.reason, now + policy.restage_s, again=e.again)
                m.to_suspend = False
            else:  # only the driver was asked
                m.note_no_suspension(e.reason)
            m.end_copying()
            m.enter(Phase.READY if m.holds_memory else Phase.ASLEEP, now)
        case msg.Woke() if m.phase is Phase.WAKING:
            m.enter(Phase.READY, now)
            m.note_ready(now, e.wake_s, policy)
            m.load_requested = False
            m.note_wake(e.wake_s)
            m.note_footprint(e.footprint_bytes)
        case _:
            pass


def _note_slept(m: Model, e: msg.Slept) -> None:
    if e.host_bytes:
        m.note_copies(e.host_bytes, e.freed_bytes)
    if e.suspended_bytes:
        m.note_suspension(e.suspended_bytes, e.sleep_s)
        return
    if m.to_suspend:
        m.note_no_suspension(e.suspend_refusal)
    m.note_sleep(e.residue_bytes, e.sleep_s)


def host_room_bytes(models: Iterable[Model], budget_bytes: int) -> int:
    """Main memory that further copies may take; it may be negative."""
    return budget_bytes - sum(m.held_host_bytes for m in models)


def judge_copies(
    m: Model, host_bytes: int, models: Iterable[Model], budget_bytes: int, now: float
) -> HostDecision:
    """Decide whether `m` may take `host_bytes` of main memory now."""
    models = list(models)
    short = host_bytes - m.held_host_bytes - host_room_bytes(models, budget_bytes)
    if short <= 0:
        return HostDecision(fits=True)
    short -= _leaving_bytes(models)
    if short <= 0:
        return HostDecision(wait=True)
    limit = m.cost_to_end_sleep(now)
    colder = [o for o in _coldest(models, now) if o.cost_to_end_sleep(now) < limit]
    return HostDecision(stop=_enough([o for o in colder if not o.waiting], short))


def judge_host_overcommitment(
    models: Iterable[Model], budget_bytes: int, now: float
) -> tuple[Model, ...]:
    """The sleepers to stop because all copies together take more than they may. All sleepers, if
    even that is not enough."""
    models = list(models)
    over = -host_room_bytes(models, budget_bytes)
    if over <= 0:  # nearly always; this is called after every event
        return ()
    over -= _leaving_bytes(models)
    coldest = _coldest(models, now)
    return (_enough(coldest, over) or tuple(coldest)) if over > 0 else ()


def _coldest(models: Iterable[Model], now: float) -> list[Model]:
    """The sleepers with copies, cheapest to stop first; those with waiting predictions last."""
    asleep = [m for m in models if m.phase is Phase.ASLEEP and m.held_host_bytes]
    return sorted(asleep, key=lambda m: (bool(m.waiting), m.cost_to_end_sleep(now)))


def _leaving_bytes(models: Iterable[Model]) -> int:
    return sum(m.held_host_bytes for m in models if m.phase is Phase.STOPPING)


def _enough(candidates: Iterable[Model], bytes_needed: int) -> tuple[Model, ...]:
    """The first candidates whose copies together take that much; empty when all take less."""
    chosen: list[Model] = []
    for m in candidates:
        if bytes_needed <= 0:
            break
        chosen.append(m)
        bytes_needed -= m.held_host_bytes
    return tuple(chosen) if bytes_needed <= 0 else ()
