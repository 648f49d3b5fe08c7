"""A log is bounded, and every line keeps its number."""

from __future__ import annotations

import pytest

from router.models.worker_hook import callme_print_limit
from router.prediction import LogText
from router.predictions.prediction_log import (
    GAP,
    HEAD_BYTES,
    TAIL_BYTES,
    PredictionLog,
    bounded,
    gap_line,
    lines_since,
)

MANY = [f"line {n} é\n" for n in range(200_000)]


def logged(lines: list[str]) -> PredictionLog:
    """A log with these lines."""
    log = PredictionLog()
    for line in lines:
        log.add(LogText(line))
    return log


def test_the_first_and_the_last_are_kept() -> None:
    """64 KiB, a line that says what is missing, 1 MiB; nothing is counted twice or not at all."""
    text = logged(MANY).text()
    gap = GAP.search(text)
    assert gap is not None
    head, tail = text[: gap.start()], text[gap.end() :]
    assert HEAD_BYTES - 100 < len(head.encode()) <= HEAD_BYTES
    assert TAIL_BYTES - 100 < len(tail.encode()) <= TAIL_BYTES
    whole = "".join(MANY)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert int(gap[1]) == len(MANY) - text.count("\n") + 1
    assert int(gap[2]) == len(whole.encode()) - len(head.encode()) - len(tail.encode())
    assert bounded(whole) == text


@pytest.mark.parametrize("lines", [[], ["a\n"], ["a\n", "\n", "b"], MANY[:20_000]])
def test_what_fits_is_kept_as_it_is(lines: list[str]) -> None:
    """Not a byte is different."""
    assert logged(lines).text() == bounded("".join(lines)) == "".join(lines)


def test_several_lines_at_once() -> None:
    """Numbers are those of lines, however they came."""
    log = PredictionLog()
    log.add(LogText("a\nb\n"))
    log.add(LogText("c\n"))
    assert [n for n, _ in log.since(0)] == [1, 2, 3]
    assert [line.text for _, line in log.since(1)] == ["b\n", "c\n"]


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 10, 3_000, 50_000, 120_000, 199_990, 200_000])
def test_a_place_holds_while_it_runs_and_when_it_has_ended(place: int) -> None:
    """One in the head or the tail goes on there; one in the gap jumps, and one line says so."""
    log = logged(MANY)
    running, ended = log.since(place), lines_since(log.text(), place)
    assert [(n, line.text) for n, line in running] == [(n, line.text) for n, line in ended]
    shown = [(n, line.text) for n, line in running if not GAP.fullmatch(line.text)]
    assert all(MANY[n - 1] == text for n, text in shown)
    missed = [GAP.fullmatch(line.text) for _, line in running]
    count = sum(int(found[1]) for found in missed if found)
    assert place + len(shown) + count == len(MANY)


def test_what_the_worker_has_left_out_counts() -> None:
    """Its own line of that kind goes into ours when it comes to the gap."""
    lines = [*MANY[:100_000], gap_line(1000, 50_000), *MANY[100_000:]]
    text = logged(lines).text()
    assert bounded("".join(lines)) == text
    gaps = list(GAP.finditer(text))
    assert len(gaps) == 1
    assert int(gaps[0][1]) == len(MANY) + 1000 - text.count("\n") + 1


def test_one_wording() -> None:
    """The model's process cannot import ours."""
    assert gap_line(3, 4) == callme_print_limit.GAP % (3, 4)


def test_lines_longer_than_any_bound() -> None:
    """One line of megabytes is cut, not kept."""
    assert len(bounded("x" * (4 << 20)).encode()) < HEAD_BYTES + TAIL_BYTES + 100
    text = logged(["y" * (2 << 20) + "\n", "end\n"]).text()
    assert text.endswith("end\n")
    assert len(text) < 100


def test_the_end_of_a_short_log_is_all_of_it() -> None:
    """Of one that is longer than what is asked for, the last lines and how many come before."""
    kept = logged([f"{n}\n" for n in range(5)])
    assert kept.end(10) == "0\n1\n2\n3\n4\n"
    assert kept.end(9) == f"{gap_line(1, 2)}1\n2\n3\n4\n"
