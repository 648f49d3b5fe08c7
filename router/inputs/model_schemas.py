"""The schemas of all models. This is the only cache of schemas.

Each schema is read once, and again when its package is restarted (`refresh`).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from router.errors import ModelUnavailable
from router.inputs.input_schema import InputSchema
from router.models.catalog import Package
from router.models.process_interface import StartError
from router.models.schemas import Description

Describe = Callable[[Package], Awaitable[Description]]

# Soon enough for a back-end that is just starting. Without this wait, a loop of routers, or a
# back-end that never answers, would be asked with every request.
RETRY_DESCRIBE_S = 5.0
RETRY_DESCRIBE_MAX_S = 300.0  # the limit when a back-end asks for a longer wait


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a model's schema cannot be read. `until`: when it is tried again, in seconds of
    `time.monotonic`. `location` and `log` are for the operator only, see `StartError`."""

    reason: str
    until: float
    location: str = ""
    log: Sequence[str] = ()

    def retry_in_s(self) -> float:
        """Return the seconds until it may be tried again."""
        return max(self.until - time.monotonic(), 0.0)


class ModelSchemas:
    """Schemas by the model's name. `openapi`: each OpenAPI document. `versions`: a hash of each.

    A model is in both only after it has been described.
    """

    def __init__(self, describe: Describe) -> None:
        """`describe` reads, makes or requests a description, and raises StartError if it cannot."""
        self.openapi: dict[str, Mapping[str, Any]] = {}
        self.versions: dict[str, str] = {}
        self._describe = describe
        self._descriptions: dict[str, Description] = {}
        self._input_schemas: dict[str, InputSchema] = {}
        self._describing: dict[str, asyncio.Task[InputSchema | None]] = {}
        self._unreadable: dict[str, Unreadable] = {}
        self._callbacks: list[Callable[[str, Description], object]] = []

    def on_described(self, callback: Callable[[str, Description], object]) -> None:
        """Call `callback` with the name and description of each model described from now on."""
        self._callbacks.append(callback)

    def known(self, model: str) -> Description | None:
        """Return the description, or None while there is none."""
        return self._descriptions.get(model)

    def unreadable(self, model: str) -> Unreadable | None:
        """Return why the last try to read the model's schema has failed; None when it has not."""
        return self._unreadable.get(model)

    async def input_schema(self, package: Package) -> InputSchema:
        """Return the model's inputs.

        While its schema is being made or requested, all callers wait for the same result. Raises
        ModelUnavailable when the schema cannot be read. For RETRY_DESCRIBE_S after that, or for as
        long as the back-end asks, it raises again without another try.
        """
        name = package.name
        if (input_schema := self._input_schemas.get(name)) is not None:
            return input_schema
        self._raise_recent(name)
        task = self._describing.get(name)
        if task is None:
            task = self._describing[name] = asyncio.create_task(self._read(package))
            task.add_done_callback(lambda _: self._describing.pop(name, None))
        # Shielded: a caller that is canceled must not cancel this for the others.
        input_schema = await asyncio.shield(task)
        if input_schema is None:
            self._raise_recent(name)
            raise ModelUnavailable(f"Cannot read '{name}'", retry_after_s=1)
        return input_schema

    async def refresh(self, package: Package) -> None:
        """Read the schema again, because the package has changed.

        Raises StartError when it cannot be read. Then the schema that was known stays in use.
        """
        task = asyncio.create_task(self._read(package))
        if await asyncio.shield(task) is None:
            why = self._unreadable[package.name]
            raise StartError(why.reason, location=why.location, log=why.log)

    async def _read(self, package: Package) -> InputSchema | None:
        """Return the model's inputs, or None when they cannot be read; the reason is kept."""
        name = package.name
        try:
            description = await self._describe(package)
        except StartError as error:
            wait_s = max(RETRY_DESCRIBE_S, min(error.retry_after_s or 0.0, RETRY_DESCRIBE_MAX_S))
            until = time.monotonic() + wait_s
            self._unreadable[name] = Unreadable(str(error), until, error.location, error.log)
            return None
        self._unreadable.pop(name, None)
        self.openapi[name] = description.schema
        described = orjson.dumps([name, description.schema], option=orjson.OPT_SORT_KEYS)
        self.versions[name] = hashlib.sha256(described).hexdigest()
        self._descriptions[name] = description
        input_schema = self._input_schemas[name] = InputSchema(description.schema)
        for callback in self._callbacks:
            callback(name, description)
        return input_schema

    def _raise_recent(self, name: str) -> None:
        """Raise ModelUnavailable while the last failure must not yet be tried again."""
        known = self._unreadable.get(name)
        if known is not None and (left_s := known.retry_in_s()) > 0:
            message = f"Cannot read '{name}': {known.reason}"
            raise ModelUnavailable(message, retry_after_s=max(left_s, 1))
