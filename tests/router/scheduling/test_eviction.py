"""Who must go so that another may come."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from router.scheduling.eviction import (
    ClaimDecision,
    enough_of,
    held_bytes,
    judge_claim,
    judge_overcommitment,
)
from router.scheduling.model import DEMAND_HALF_LIFE_S, Model, Phase, Run
from router.scheduling.queue import Waiter, WaitingLine
from router.scheduling.tunables import Policy

NOW = 1000.0
POLICY = Policy()
MIN_RESIDENCY_S = POLICY.min_residency_s


def model(
    name: str,
    need: int = 10,
    *,
    phase: Phase = Phase.READY,
    ready_for_s: float = 100.0,
    load_s: float = 5.0,
    requests: int = 1,
    busy: bool = False,
) -> Model:
    """A model that is ready, settled and idle unless told otherwise."""
    m = Model(name, 1, WaitingLine(30.0), need)
    m.load_s = load_s
    m.enter(Phase.STARTING, NOW - ready_for_s)
    m.enter(phase, NOW - ready_for_s)
    m.note_ready(NOW - ready_for_s, load_s, POLICY)
    for _ in range(requests):
        m.note_request(NOW - ready_for_s)
    if busy:
        m.running[f"{name}1"] = Run(Waiter(f"{name}1", "", 1, NOW), 1)
    return m


def judge(
    need: int, others: Sequence[Model], free: int, *, may_drain: bool = False
) -> ClaimDecision:
    """A claim of `need` bytes now."""
    claim = model("claim", need, phase=Phase.STOPPED)
    return judge_claim(claim, others, free, NOW, may_drain=may_drain)


def names(models: Sequence[Model]) -> set[str]:
    return {m.name for m in models}


def test_what_fits_disturbs_nobody() -> None:
    """With enough free nothing is stopped."""
    assert judge(10, [model("a")], free=10) == ClaimDecision(fits=True)


def test_an_idle_model_goes() -> None:
    """What is missing is taken from an idle model."""
    decision = judge(10, [model("a")], free=0)
    assert (decision.fits, names(decision.evict), decision.drain) == (False, {"a"}, ())


def test_a_busy_model_stays() -> None:
    """A model that runs something is not stopped for a claim that can still wait."""
    assert judge(10, [model("a", busy=True)], free=0) == ClaimDecision(fits=False)


def test_a_model_with_waiters_is_busy() -> None:
    """Between two runs a model is not idle."""
    a = model("a")
    a.waiting.join(Waiter("1", "", 1, NOW))
    assert judge(10, [a], free=0) == ClaimDecision(fits=False)


def test_a_new_model_stays() -> None:
    """Below min_residency_s even an idle model is left alone; from then on it is not."""
    assert judge(10, [model("a", ready_for_s=9.9)], free=0) == ClaimDecision(fits=False)
    assert names(judge(10, [model("a", ready_for_s=10.0)], free=0).evict) == {"a"}


def test_memory_on_its_way_is_waited_for() -> None:
    """A model that is stopping already gives its memory; no second one is stopped."""
    stopping = model("a", phase=Phase.STOPPING)
    assert judge(10, [stopping, model("b"), model("c")], free=0) == ClaimDecision(fits=False)
    for need in (11, 15):
        assert len(judge(need, [stopping, model("b"), model("c")], free=0).evict) == 1


def test_quick_to_load_goes_first() -> None:
    """Of two equally used models the one that is sooner back goes."""
    slow, quick = model("slow", load_s=60), model("quick", load_s=3)
    assert names(judge(10, [slow, quick], free=0).evict) == {"quick"}


def test_little_used_goes_first() -> None:
    """Of two equally slow models the one less likely to be asked for goes."""
    popular, quiet = model("popular", requests=20), model("quiet", requests=2)
    assert names(judge(10, [popular, quiet], free=0).evict) == {"quiet"}


def test_past_use_fades() -> None:
    """Twenty requests long ago weigh less than two just now."""
    past = model("past", requests=20, ready_for_s=5 * DEMAND_HALF_LIFE_S)
    now = model("now", requests=2)
    assert names(judge(10, [past, now], free=0).evict) == {"past"}


def test_large_goes_first() -> None:
    """Per byte that it frees, the larger of two is cheaper to lose."""
    large, small = model("large", need=20), model("small", need=10)
    assert names(judge(10, [small, large], free=0).evict) == {"large"}


def test_without_use_the_quick_one_goes_first() -> None:
    """Among models that nobody has asked for, load time still counts."""
    slow, quick = model("slow", load_s=60, requests=0), model("quick", requests=0)
    assert names(judge(10, [slow, quick], free=0).evict) == {"quick"}


def test_nobody_goes_in_vain() -> None:
    """If all idle models together do not make the room, none is stopped."""
    assert judge(10, [model("a", need=4), model("b", busy=True)], free=0) == ClaimDecision(
        fits=False
    )


def test_no_more_go_than_needed() -> None:
    """A cheap model is spared if the next one makes the room alone."""
    cheap, large = model("cheap", need=4, load_s=0.1), model("large", need=10)
    assert names(judge(10, [cheap, large], free=0).evict) == {"large"}


def test_patience_drains_a_busy_model() -> None:
    """For a claim that has waited long enough, a busy model is granted nothing new."""
    decision = judge(10, [model("a", busy=True)], free=0, may_drain=True)
    assert (decision.evict, names(decision.drain)) == ((), {"a"})


def test_patience_takes_idle_models_first() -> None:
    """What idle models give is not asked of busy ones."""
    idle, busy = model("idle", need=6), model("busy", need=4, busy=True)
    other = model("other", need=4, busy=True)
    decision = judge(10, [busy, idle, other], free=0, may_drain=True)
    assert names(decision.evict) == {"idle"}
    assert len(decision.drain) == 1


def test_a_drained_model_stays_the_choice() -> None:
    """Who is draining already goes on draining, though another has become cheaper."""
    draining, cheaper = model("draining", busy=True), model("cheaper", busy=True, load_s=0.1)
    draining.draining = True
    decision = judge(10, [cheaper, draining], free=0, may_drain=True)
    assert names(decision.drain) == {"draining"}


def test_a_drained_model_goes_with_its_last_run() -> None:
    """Without a run left it is stopped, though others wait for it."""
    a = model("a")
    a.waiting.join(Waiter("1", "", 1, NOW))
    assert names(judge(10, [a], free=0, may_drain=True).evict) == {"a"}


def test_a_busy_model_stays_as_long_as_it_took_to_load() -> None:
    """A model that loads for half a minute serves for as long before it is drained."""
    slow = model("slow", load_s=30, ready_for_s=29.9, busy=True)
    assert judge(10, [slow], free=0, may_drain=True) == ClaimDecision(fits=False)
    slow.note_ready(NOW - 30, 30, POLICY)
    assert names(judge(10, [slow], free=0, may_drain=True).drain) == {"slow"}


def test_a_download_protects_for_a_minute_only() -> None:
    """A first load of many minutes does not keep others waiting for as long."""
    slow = model("slow", load_s=900, ready_for_s=59.9, busy=True)
    assert judge(10, [slow], free=0, may_drain=True) == ClaimDecision(fits=False)
    slow.note_ready(NOW - 60, 900, POLICY)
    assert names(judge(10, [slow], free=0, may_drain=True).drain) == {"slow"}


def test_older_claims_come_first() -> None:
    """Free memory below zero is what older claims have reserved: more must go."""
    decision = judge(10, [model("a"), model("b")], free=-10)
    assert names(decision.evict) == {"a", "b"}


def test_loading_resident_and_stopping_models_hold_memory() -> None:
    """Memory counts from the start of a process until it has been seen to be free."""
    held = [model("a", phase=p) for p in (Phase.STARTING, Phase.READY, Phase.STOPPING)]
    free = [model("b", phase=p) for p in (Phase.STOPPED, Phase.FAILED)]
    assert held_bytes(held + free) == 30


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(1, 60))
def test_enough_but_no_more(needs: list[int], wanted: int) -> None:
    """The chosen free enough, and without any one of them they would not."""
    models = [model(str(i), need) for i, need in enumerate(needs)]
    chosen = enough_of(models, wanted)
    if not chosen:
        assert sum(needs) < wanted
        return
    freed = sum(m.need_bytes for m in chosen)
    assert freed >= wanted
    assert all(freed - m.need_bytes < wanted for m in chosen)


def test_overcommitment_drains_no_more_than_it_must() -> None:
    """Of two busy models one is enough; when all together are not enough, all must go."""
    busy = [model("a", busy=True), model("b", busy=True)]

    def relief(over_bytes: int) -> ClaimDecision:
        return judge_overcommitment(busy, over_bytes, NOW, may_drain=True)

    assert len(relief(10).drain) == 1
    assert names(relief(30).drain) == {"a", "b"}


def test_a_large_last_one_spares_all_that_are_not_needed() -> None:
    """However many were chosen before it."""
    small = [model(str(i), need=1) for i in range(6)]
    large = model("large", need=20)
    assert enough_of([*small, large], 20) == [large]
