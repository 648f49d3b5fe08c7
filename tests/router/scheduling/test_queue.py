"""Who is next: priority with ageing, then the owner served least, then the order of arrival."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from router.scheduling.queue import Waiter, WaitingLine

AGEING_S = 30.0


def line_of(*waiters: Waiter) -> WaitingLine:
    """A line that these joined in turn."""
    line = WaitingLine(AGEING_S)
    for w in waiters:
        line.join(w)
    return line


def waiter(name: str, owner: str = "", *, priority: int = 1, since: float = 0.0) -> Waiter:
    return Waiter(name, owner, priority, since)


def ids(waiters: Iterable[Waiter]) -> list[str]:
    return [w.id for w in waiters]


def take_all(line: WaitingLine, now: float) -> list[str]:
    return [line.take(now).id for _ in range(len(line))]


def test_first_come_first_served() -> None:
    """Among equals the one who has waited longest is next."""
    line = line_of(waiter("1", since=0), waiter("2", since=1), waiter("3", since=2))
    assert take_all(line, now=3) == ["1", "2", "3"]


def test_a_lower_priority_number_goes_first() -> None:
    """Priority 0 overtakes 1, which overtakes 2, whenever they came."""
    line = line_of(
        waiter("late", priority=2, since=0),
        waiter("normal", priority=1, since=1),
        waiter("urgent", priority=0, since=2),
    )
    assert take_all(line, now=3) == ["urgent", "normal", "late"]


def test_waiting_raises_priority() -> None:
    """After ageing_s a request of priority 1 stands level with a new one of priority 0."""
    line = line_of(
        waiter("old", "a", priority=1, since=0), waiter("new", "b", priority=0, since=29)
    )
    assert ids(line.order(now=29.9)) == ["new", "old"]
    assert ids(line.order(now=30.0)) == ["old", "new"]


def test_the_lowest_priority_does_not_starve() -> None:
    """With an urgent request always waiting, one of priority 2 still runs within 2 x ageing_s."""
    line = line_of(waiter("patient", "a", priority=2, since=0))
    for now in range(0, 70, 5):
        line.join(waiter(f"urgent{now}", "b", priority=0, since=now))
        if line.take(now).id == "patient":
            assert now <= 2 * AGEING_S
            return
    raise AssertionError("starved")


def test_owners_take_turns() -> None:
    """Another client's single request waits one turn, not for sixty of the first's."""
    line = line_of(*(waiter(f"a{i}", "a", since=i / 100) for i in range(60)))
    assert line.take(1).id == "a0"
    line.join(waiter("b0", "b", since=1))
    assert line.take(1).id == "a1"
    assert line.take(1).id == "b0"


def test_order_is_what_take_does() -> None:
    """The order shown to waiters is the one they are served in if nobody else comes."""
    line = line_of(
        waiter("a1", "a", since=0),
        waiter("a2", "a", since=1),
        waiter("b1", "b", since=2, priority=0),
        waiter("b2", "b", since=3),
        waiter("c1", "c", since=4, priority=2),
    )
    shown = ids(line.order(now=5))
    assert shown == take_all(line, now=5)


def test_a_newcomer_has_no_credit() -> None:
    """Who was away while others were served does not make up for it."""
    line = line_of(*(waiter(f"a{i}", "a", since=i) for i in range(10)))
    for _ in range(5):
        line.take(10)
    for i in range(3):
        line.join(waiter(f"b{i}", "b", since=10 + i))
    assert take_all(line, now=13) == ["a5", "b0", "a6", "b1", "a7", "b2", "a8", "a9"]


def test_who_comes_and_goes_does_not_overtake_for_ever() -> None:
    """Clients whose single requests always overlap pass another's waiting one a few times."""
    line = line_of(waiter("b", "b", priority=2, since=0))
    for i in range(6):
        line.join(waiter(f"a{i}", "a", priority=0, since=i))
    assert [line.take(6).id for _ in range(5)] == ["a0", "a1", "a2", "a3", "a4"]
    # From here on b or c always waits, so neither ever counts as a newcomer to an empty line.
    for i in range(60, 100):
        line.join(waiter(f"c{i}", "cb"[i % 2], priority=0, since=i))
        if line.take(i).id == "a5":
            assert i < 70
            return
    raise AssertionError("a starved")


def test_handed_back_is_next_again() -> None:
    """Who was taken in vain comes back to the head, before its owner's turn and any rank."""
    line = line_of(*(waiter(f"a{i}", "a", priority=2, since=i) for i in range(3)))
    taken = line.take(3)
    line.join(waiter("b0", "b", priority=0, since=3))
    line.rejoin(taken)
    assert take_all(line, now=4) == ["a0", "b0", "a1", "a2"]


def test_handed_back_to_a_line_of_others() -> None:
    """The line has forgotten an owner without waiters; who is handed back is next all the same."""
    line = line_of(waiter("a0", "a", since=0))
    taken = line.take(1)
    line.join(waiter("b0", "b", since=1))
    line.rejoin(taken)
    assert ids(line.order(2)) == ["a0", "b0"]
    assert take_all(line, now=2) == ["a0", "b0"]


def test_handed_back_is_charged_once() -> None:
    """A grant that came to nothing does not cost the owner another turn."""
    line = line_of(*(waiter(f"a{i}", "a", since=i) for i in range(3)))
    for _ in range(5):
        line.rejoin(line.take(3))
    line.join(waiter("b0", "b", since=3))
    assert take_all(line, now=4) == ["a0", "a1", "b0", "a2"]


def test_leave() -> None:
    """Who leaves is gone; who is not there cannot leave."""
    line = line_of(waiter("1"), waiter("2"))
    assert line.leave("1")
    assert not line.leave("1")
    assert ids(line) == ["2"]


def test_oldest_since() -> None:
    """The longest wait counts, also of one handed back."""
    line = line_of(waiter("1", since=5), waiter("2", since=7))
    assert line.oldest_since() == 5
    first = line.take(8)
    assert line.oldest_since() == 7
    line.rejoin(first)
    assert line.oldest_since() == 5
    assert ids(line.clear()) == ["1", "2"]
    assert line.oldest_since() is None


def test_one_owner_may_fill_the_line_but_not_lock_others_out() -> None:
    """A line full of one client's requests still has room for another's fair share."""
    line = line_of(*(waiter(f"a{i}", "a") for i in range(4)))
    assert not line.has_room("a", limit=4)
    for i in range(2):
        assert line.has_room("b", limit=4)
        line.join(waiter(f"b{i}", "b"))
    assert not line.has_room("b", limit=4)
    assert line.has_room("c", limit=4)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(1, 8))
def test_the_line_is_bounded(arrivals: list[str], limit: int) -> None:
    """However many come, n owners wait with at most limit x (1 + 1/2 + … + 1/n)."""
    line = WaitingLine(AGEING_S)
    for i, owner in enumerate(arrivals):
        if line.has_room(owner, limit):
            line.join(waiter(str(i), owner))
    assert len(line) <= limit * (1 + 1 / 2 + 1 / 3)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 90)), max_size=12),
    st.integers(90, 200),
    st.integers(0, 6),
)
def test_order_agrees_with_take(
    arrivals: list[tuple[str, int, int]], now: int, served: int
) -> None:
    """Whatever stands in line and was served before, the order shown is the order served."""
    arrivals.sort(key=lambda a: a[2])
    line = line_of(
        *(waiter(str(i), o, priority=p, since=s) for i, (o, p, s) in enumerate(arrivals))
    )
    for _ in range(min(served, len(line))):
        line.take(now)
    shown = ids(line.order(now))
    assert shown == take_all(line, now)
