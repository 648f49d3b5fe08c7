"""What a model takes is asked for once, however many wait, and not at once again."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from router.errors import ModelUnavailable
from router.inputs import model_schemas
from router.inputs.model_schemas import RETRY_DESCRIBE_S, ModelSchemas
from router.models.catalog import Package
from router.models.process_interface import StartError
from router.models.schemas import Description

FAR = Package("far", Path("/far"), "", Path(sys.executable))
SCHEMA = Description({"components": {"schemas": {"Input": {"properties": {}}}}}, 2)


class Source:
    """Where schemas come from, when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[Description] = asyncio.get_running_loop().create_future()

    async def describe(self, package: Package) -> Description:
        """Until the test answers."""
        self.asked += 1
        return await asyncio.shield(self.answer)


async def test_it_is_asked_for_once() -> None:
    """Of many who wait one may leave; the others have it all the same."""
    source = Source()
    schemas = ModelSchemas(source.describe)
    described: list[tuple[str, Description]] = []
    schemas.on_described(lambda *told: described.append(told))
    leaver, *others = [asyncio.create_task(schemas.input_schema(FAR)) for _ in range(50)]
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    source.answer.set_result(SCHEMA)
    specs = await asyncio.gather(*others)
    assert source.asked == 1
    assert all(spec is specs[0] for spec in specs)
    assert await schemas.input_schema(FAR) is specs[0]
    assert schemas.known("far") == SCHEMA
    assert described == [("far", SCHEMA)]
    assert leaver.cancelled()


async def test_a_failure_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as Retry-After says; then it is tried again."""
    now = 1000.0
    monkeypatch.setattr(model_schemas, "time", SimpleNamespace(monotonic=lambda: now))
    source = Source()
    source.answer.set_exception(StartError("its back-end is silent"))
    schemas = ModelSchemas(source.describe)
    for waited_s in (0.0, 1.0, 3.5):
        now = 1000.0 + waited_s
        with pytest.raises(ModelUnavailable, match="Cannot read 'far': its back-end") as told:
            await schemas.input_schema(FAR)
        assert told.value.retry_after_s is not None
        assert math.isclose(told.value.retry_after_s, RETRY_DESCRIBE_S - waited_s)
    assert source.asked == 1
    now = 1000.0 + RETRY_DESCRIBE_S
    source.answer = asyncio.get_running_loop().create_future()
    source.answer.set_exception(StartError("its back-end is busy", retry_after_s=90.0))
    with pytest.raises(ModelUnavailable) as told:
        await schemas.input_schema(FAR)
    assert told.value.retry_after_s == 90.0
    now += 90.0
    source.answer = asyncio.get_running_loop().create_future()
    source.answer.set_result(SCHEMA)
    await schemas.input_schema(FAR)
    assert source.asked == 3
