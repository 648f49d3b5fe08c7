"""Time stamps: silence that is missing comes back, packets that only came late add none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stamps import HORIZON_S, MIN_GAP_S, gaps

PACKET_S = 0.02


def silence(stamps: list[float | None]) -> dict[int, float]:
    """Where silence goes between packets of 20 ms with these stamps, and how much."""
    found = gaps((stamp, PACKET_S) for stamp in stamps)
    return {index: round(gap, 3) for index, gap in enumerate(found) if gap}


def steady(count: int, start_s: float = 0.0) -> list[float | None]:
    return [start_s + index * PACKET_S for index in range(count)]


@pytest.mark.parametrize("start_s", [0.0, 7.3])
def test_packets_in_time_have_no_silence_between_them(start_s: float) -> None:
    """Whatever the first stamp is."""
    assert silence(steady(1000, start_s)) == {}


def test_a_gap_that_stays_is_silence() -> None:
    """Packets of a pause that were not sent, and a second pause."""
    later = [*steady(100), *steady(400, 2 + 1.5), *steady(50, 10 + 1.5 + 0.4)]
    assert silence(later) == {100: 1.5, 500: 0.4}


@pytest.mark.parametrize("late_s", [0.2, 0.5, 2.0])
def test_a_stall_that_catches_up_adds_nothing(late_s: float) -> None:
    """The browser was busy: packets come late and all at once, then in time again."""
    stalled = steady(600)
    for index in range(100, 600):
        due = index * PACKET_S
        stalled[index] = max(due, 2 + late_s) if due < 2 + late_s else due
    assert silence(stalled) == {}


def test_jitter_adds_nothing() -> None:
    """Stamps rounded up to the next 0.25 s, as of a coarse clock."""
    assert silence([-(-index * PACKET_S // 0.25) * 0.25 for index in range(900)]) == {}


def test_a_slow_clock_adds_nothing() -> None:
    """Stamps that fall behind by one in a hundred, with jitter."""
    stamps = [index * PACKET_S * 0.99 + 0.03 * (index % 2) for index in range(2000)]
    assert silence(list(stamps)) == {}


def test_a_damaged_packet_is_no_silence() -> None:
    """Where a stamp is missing, the next one counts as right."""
    assert silence([*steady(100), None, *steady(100, 5.0)]) == {}


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 40).map(float), st.sampled_from([0.5, 1.0, 4.0])),
        max_size=40,
    )
)
def test_the_rule_word_for_word(pieces: list[tuple[float | None, float]]) -> None:
    """A gap is what all stamps of the next five seconds keep, up to one that is missing."""
    heard_s = [sum(length for _, length in pieces[:index]) for index in range(len(pieces) + 1)]
    late = [
        None if start is None else start - before
        for (start, _), before in zip(pieces, heard_s, strict=False)
    ]
    base, expected = None, []
    for index in range(len(pieces)):
        ahead: list[float] = []
        for other in range(index, len(pieces)):
            value = late[other]
            if value is None:
                break
            ahead.append(value)
            if heard_s[other + 1] - heard_s[index] > HORIZON_S:
                break
        least = min(ahead, default=None)
        is_gap = base is not None and least is not None and least - base > MIN_GAP_S
        expected.append(least - base if is_gap else 0.0)
        if is_gap or base is None or least is None or least < base:
            base = least
    assert list(gaps(iter(pieces))) == expected
