"""Lines of the log: JSON where nobody looks, and the same by the short way that requests take."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from router.logs import (
    PACKAGE_UNREADABLE,
    START_FAILED,
    JsonHandler,
    StartFailureFilter,
    log_info,
)

log = logging.getLogger("router.test_logs")
FIELDS = {"status": 200, "path": '/a"\x1b\n', 7: object, "text": "é"}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the only handler writes."""
    stream = io.StringIO()
    monkeypatch.setattr(logging.root, "handlers", [JsonHandler(stream)])
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    yield stream
    monkeypatch.undo()
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    """The lines, each with a time of today in place of its timestamp."""
    out = [json.loads(line) for line in written.getvalue().splitlines()]
    for line in out:
        at = datetime.fromisoformat(line.pop("timestamp"))
        assert at.utcoffset() == UTC.utcoffset(at)
        assert abs((datetime.now(UTC) - at).total_seconds()) < 3600
    return out


def test_the_short_way_writes_the_same_line(written: io.StringIO) -> None:
    """With the same fields, also when a value or a name is not JSON."""
    fields: dict[Any, Any] = FIELDS
    log.info("request", extra=fields)
    log_info(log, "request", fields)
    by_record, by_short_way = lines(written)
    assert by_short_way == by_record
    assert by_record["event"] == "request"
    assert by_record["7"] == "<class 'object'>"


def test_what_is_below_the_level_is_not_written(written: io.StringIO) -> None:
    """Neither way."""
    logging.root.setLevel(logging.WARNING)
    log_info(log, "request", {})
    assert written.getvalue() == ""


def test_other_handlers_get_a_record(
    written: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one for a terminal."""
    logging.root.addHandler(caplog.handler)
    log_info(log, "request", {"status": 200})
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["status"]) == ("request", 200)
    assert len(lines(written)) == 1


def test_a_log_that_cannot_be_written_stops_nothing(
    written: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """As logging does it: the error is printed, the request goes on."""
    written.close()
    log_info(log, "request", {})
    assert "I/O operation on closed file" in capsys.readouterr().err


def test_a_failed_start_is_hidden_while_a_command_prints_it(written: io.StringIO) -> None:
    """Of the models that it shows. Other lines, other models and a bug's traceback are logged, and
    everything is after the last command has ended."""
    failures = StartFailureFilter()

    def log_all(model: str) -> int:
        before = len(lines(written))
        log.error(START_FAILED, extra={"model": model})
        log.error(PACKAGE_UNREADABLE, extra={"model": model})
        return len(lines(written)) - before

    failures.hide()
    with failures.hidden("frog"):
        assert (log_all("frog"), log_all("toad")) == (0, 0)
        failures.show()
        assert (log_all("frog"), log_all("toad")) == (0, 2)
        with contextlib.suppress(ValueError), failures.hidden("frog"):
            raise ValueError
        assert log_all("frog") == 0
        try:
            raise ValueError
        except ValueError:
            log.exception(START_FAILED, extra={"model": "frog"})
        log.error("something else", extra={"model": "frog"})
        assert [line["event"] for line in lines(written)[-2:]] == [START_FAILED, "something else"]
    assert log_all("frog") == 2
