"""`callme up --reload`, without a router: what is restarted, and what is logged meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from router.cli.reload import restart_changed
from router.errors import ModelUnavailable
from router.logs import START_FAILED, StartFailureFilter
from router.models.source_files import Stamp, stamps
from tests.waiting import until


async def test_a_failed_restart_hides_no_later_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command prints itself is not logged. What fails after that is, also when the
    restart before could not even begin, as after each syntax error."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    seen: list[str] = []
    looked: list[object] = []

    def look(folder: Path) -> Mapping[str, Stamp]:
        found = stamps(folder)
        looked.append(found)
        return found

    monkeypatch.setattr("router.cli.reload.stamps", look)

    async def restart(model: str) -> None:
        logging.error(START_FAILED, extra={"model": model})
        seen.append("restart")
        if "(" in (tmp_path / "run.py").read_text():
            raise ModelUnavailable("Cannot restart 'frog': SyntaxError")

    async def show(model: str) -> None:
        seen.append("show")

    (tmp_path / "run.py").write_text("1")
    failures = StartFailureFilter()
    work = asyncio.create_task(restart_changed({"frog": tmp_path}, restart, show, failures))
    try:
        await until(lambda: looked)
        for text, calls in (("(", 1), ("12", 3)):
            (tmp_path / "run.py").write_text(text)
            await until(partial(_has, seen, calls))
            logging.error(START_FAILED, extra={"model": "frog", "after": text})
    finally:
        work.cancel()
    assert seen == ["restart", "restart", "show"]
    assert [vars(record)["after"] for record in caplog.records] == ["(", "12"]


def _has(seen: list[str], calls: int) -> bool:
    return len(seen) == calls
