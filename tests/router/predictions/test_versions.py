"""A canary gets its share, to within one request; a promotion and a rollback turn all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from router.errors import InsufficientStorage, MethodNotAllowed
from router.observability.facts import Facts, PredictionEnded
from router.prediction import Failure, Prediction, Status
from router.predictions.versions import FILE_NAME, Canary, Versions

NEXT = "echo@next"


def versions(
    state: Path, share: float = 0.1, version: str = NEXT, usable: set[str] | None = None
) -> Versions:
    """A box where `echo` has a canary. `usable`: the versions that can serve, all without it."""
    facts = Facts(delay_s=0)
    canaries = {"echo": Canary(version, share)}
    return Versions(state, canaries, lambda v: usable is None or v in usable, facts)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 1 / 3, 0.5, 0.77, 1.0])
def test_shares_over_2000_requests(tmp_path: Path, share: float) -> None:
    """After any number of requests the canary has its share to within one: 2 % at 50, 0.05 % at
    2,000. A model without a canary is its own."""
    box = versions(tmp_path, share)
    sent = 0
    for asked in range(1, 2001):
        sent += box.choose("echo") == NEXT
        assert abs(sent - share * asked) < 1, asked
    assert {box.choose("other") for _ in range(20)} == {"other"}
    assert {box.choose(NEXT) for _ in range(20)} == {NEXT}


def test_a_canary_that_cannot_serve_gets_nothing(tmp_path: Path) -> None:
    """And no burst when it can again."""
    usable: set[str] = set()
    box = versions(tmp_path, 0.5, usable=usable)
    assert {box.choose("echo") for _ in range(100)} == {"echo"}
    usable.add(NEXT)
    assert [box.choose("echo") for _ in range(4)] == ["echo", NEXT, "echo", NEXT]


async def test_promote_and_rollback_are_kept(tmp_path: Path) -> None:
    """Over a restart, until the settings name another version or another share."""
    box = versions(tmp_path)
    await box.promote("echo")
    assert {box.choose("echo") for _ in range(30)} == {NEXT}
    again = versions(tmp_path)
    assert {again.choose("echo") for _ in range(30)} == {NEXT}
    await again.rollback("echo")
    assert {again.choose("echo") for _ in range(30)} == {"echo"}
    assert {versions(tmp_path).choose("echo") for _ in range(30)} == {"echo"}
    assert versions(tmp_path, 1.0).choose("echo") == NEXT
    assert versions(tmp_path, 0.1, "echo@other").view("echo")["share"] == 0.1  # type: ignore[index]
    (tmp_path / FILE_NAME).write_text("[")
    assert versions(tmp_path).view("echo")["share"] == 0.1  # type: ignore[index]


async def test_what_cannot_be_done_changes_nothing(tmp_path: Path) -> None:
    """No canary, one that cannot serve, and a disk that takes no file."""
    box = versions(tmp_path, usable=set())
    with pytest.raises(MethodNotAllowed, match="it has no canary"):
        await box.promote("other")
    with pytest.raises(MethodNotAllowed, match="it cannot serve now"):
        await box.promote("echo")
    await box.rollback("echo")
    away = versions(tmp_path / "gone")
    with pytest.raises(InsufficientStorage):
        await away.promote("echo")
    assert away.view("echo")["share"] == 0.1  # type: ignore[index]


def test_both_are_compared(tmp_path: Path) -> None:
    """Outcomes and times of each. What a caller canceled or got wrong does not count."""
    facts = Facts(delay_s=0)
    box = Versions(tmp_path, {"echo": Canary(NEXT, 0.1)}, lambda _: True, facts)
    done = Prediction("p", "echo", {}, 0.0, started_at=10.0, status=Status.SUCCEEDED)
    for seconds in (1.0, 2.0, 3.0):
        facts.tell(PredictionEnded(replace(done, completed_at=10.0 + seconds), 0))
    for status, code in (
        (Status.FAILED, "worker_died"),
        (Status.FAILED, "invalid_input"),
        (Status.CANCELED, "canceled"),
    ):
        ended = replace(done, model=NEXT, status=status, failure=Failure(code, "x"))
        facts.tell(PredictionEnded(ended, 0))
    facts.tell(PredictionEnded(replace(done, model="other", completed_at=11.0), 0))
    view = box.view("echo")
    assert view is not None
    assert view["compared"]["echo"] == {
        "succeeded": 3,
        "failed": 0,
        "failed_share": 0.0,
        "run_p50_s": 2.0,
        "run_p95_s": pytest.approx(3.8),
    }
    assert view["compared"][NEXT] == {
        "succeeded": 0,
        "failed": 1,
        "failed_share": 1.0,
        "run_p50_s": None,
        "run_p95_s": None,
    }
    assert box.view("other") is None
