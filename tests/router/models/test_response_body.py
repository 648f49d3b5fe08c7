"""An answer whose log is too long arrives without it, however it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.models import coglet_responses
from router.models.coglet_responses import AnswerBody, BodyTooLargeError
from router.predictions.prediction_log import GAP

LINE = 'a "quoted" line, \\ and \u00e9 \\n\n'


def read(answer: dict[str, Any], piece_bytes: int) -> dict[str, Any]:
    """The answer, received in pieces of that size."""
    body = json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()
    reader = AnswerBody()
    for start in range(0, len(body), piece_bytes):
        reader.feed(body[start : start + piece_bytes])
    got: dict[str, Any] = json.loads(reader.whole())
    return got


@pytest.mark.parametrize("piece_bytes", [1, 7, 64, 1000, 1 << 20])
def test_a_long_log_is_left_out(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else: what is before it and behind it is whole."""
    monkeypatch.setattr(coglet_responses, "MAX_LOG_BYTES", 500)
    rest = {"metrics": {"predict_time": 1}, "output": [LINE] * 3, "status": "succeeded"}
    got = read({"error": '"logs":"', "id": "x", "logs": LINE * 100, **rest}, piece_bytes)
    gap = GAP.fullmatch(got.pop("logs"))
    assert gap is not None
    assert int(gap[1]) >= 100
    assert got == {"error": '"logs":"', "id": "x", **rest}


@pytest.mark.parametrize("piece_bytes", [7, 1 << 20])
def test_a_short_log_stays(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the output is large."""
    monkeypatch.setattr(coglet_responses, "MAX_LOG_BYTES", 500)
    answer = {"id": "x", "logs": LINE, "output": "o" * 2000, "status": "succeeded"}
    assert read(answer, piece_bytes) == answer
    assert read({"id": "x", "output": "o" * 2000}, piece_bytes) == {"id": "x", "output": "o" * 2000}


def test_what_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when there is too much, not when all has come."""
    monkeypatch.setattr(coglet_responses, "MAX_BODY_BYTES", 1000)
    reader = AnswerBody()
    with pytest.raises(BodyTooLargeError):
        for _ in range(20):
            reader.feed(b"x" * 100)
