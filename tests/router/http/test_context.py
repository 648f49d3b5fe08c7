"""What a model takes is asked for once, however many wait, and not at once again."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from router.errors import ModelUnavailable
from router.http import context as context_module
from router.http.context import RETRY_DESCRIBE_S, Context
from router.models.catalog import Package
from router.models.process import StartError

FAR = Package("far", Path("/far"), "", Path(sys.executable))
SCHEMA: Mapping[str, Any] = {"components": {"schemas": {"Input": {"properties": {}}}}}


class Source:
    """Where schemas come from, when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    async def describe(self, package: Package) -> Mapping[str, Any]:
        """Until the test answers."""
        self.asked += 1
        return await asyncio.shield(self.answer)


def context_of(source: Source) -> Context:
    """A context of which nothing else is used."""
    needed = [f.name for f in fields(Context) if f.default is f.default_factory is MISSING]
    others: dict[str, Any] = dict.fromkeys(needed)
    return Context(**{**others, "packages": {"far": FAR}, "describe": source.describe})


async def test_it_is_asked_for_once() -> None:
    """Of many who wait one may leave; the others have it all the same."""
    source = Source()
    context = context_of(source)
    leaver, *others = [asyncio.create_task(context.spec(FAR)) for _ in range(50)]
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    source.answer.set_result(SCHEMA)
    specs = await asyncio.gather(*others)
    assert source.asked == 1
    assert all(spec is specs[0] for spec in specs)
    assert await context.spec(FAR) is specs[0]
    assert leaver.cancelled()


async def test_a_failure_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as Retry-After says; then it is tried again."""
    now = 1000.0
    monkeypatch.setattr(context_module, "time", SimpleNamespace(monotonic=lambda: now))
    source = Source()
    source.answer.set_exception(StartError("its back-end is silent"))
    context = context_of(source)
    for waited_s in (0.0, 1.0, 3.5):
        now = 1000.0 + waited_s
        with pytest.raises(ModelUnavailable, match="Cannot read 'far': its back-end") as told:
            await context.spec(FAR)
        assert told.value.retry_after_s is not None
        assert math.isclose(told.value.retry_after_s, RETRY_DESCRIBE_S - waited_s)
    assert source.asked == 1
    now = 1000.0 + RETRY_DESCRIBE_S
    source.answer = asyncio.get_running_loop().create_future()
    source.answer.set_exception(StartError("its back-end is busy", retry_after_s=90.0))
    with pytest.raises(ModelUnavailable) as told:
        await context.spec(FAR)
    assert told.value.retry_after_s == 90.0
    now += 90.0
    source.answer = asyncio.get_running_loop().create_future()
    source.answer.set_result(SCHEMA)
    await context.spec(FAR)
    assert source.asked == 3
