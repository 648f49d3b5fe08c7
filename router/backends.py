"""Where each model runs: from the settings to what the loop, the predictions and the faces need.

A model that runs elsewhere only is one model to the scheduler, as every other. One with two
homes is two: `name` here, and `name@modal` (or whatever it is) there, which the faces never
see.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from router.clock import Clock
from router.models.catalog import NAME, RESERVED, Package
from router.models.process import StartError
from router.models.schemas import Description, describe
from router.prediction import Json
from router.predictions.overflow import OverflowRule
from router.remote.backend import (
    PAID,
    PAID_REQUESTS_PER_HOUR,
    Guards,
    Kind,
    RemoteOptions,
    make_backend,
    make_guards,
)
from router.remote.process import RemoteProcess
from router.settings import ModelSettings, Settings

log = logging.getLogger(__name__)

LOCAL = "local"
# Callers wait meanwhile, and ask again.
SCHEMA_LIMIT_S = 5.0
# A container may have to start for it.
MODAL_SCHEMA_LIMIT_S = 60.0


class Backends:
    """`packages`: the models as the faces know them. `homes`: as the scheduler does, each with
    its `concurrency`; those of `weightless` take no memory here. `rules`: who has a second
    home; `labels`: what that is called where people read it."""

    def __init__(self, settings: Settings, local: Mapping[str, Package], clock: Clock) -> None:
        self.packages = dict(local)
        self.homes = dict(local)
        self.concurrency = dict.fromkeys(local, 1)
        self.rules: dict[str, OverflowRule] = {}
        self.labels: dict[str, str] = {}
        self._remotes: dict[str, tuple[RemoteOptions, Guards]] = {}
        for name, model in settings.models.items():
            if model.remote_kind:
                self._add(name, model, settings, clock)
        self.weightless = frozenset(self._remotes)

    def kind(self, home: str) -> str:
        """`local`, `cog`, `replicate` or `modal`."""
        remote = self._remotes.get(home)
        return remote[0].kind.value if remote else LOCAL

    def process(self, home: str) -> RemoteProcess | None:
        """A process of a model that runs elsewhere, None for one that runs here."""
        remote = self._remotes.get(home)
        return RemoteProcess(make_backend(remote[0]), remote[1]) if remote else None

    async def describe(self, package: Package) -> Description:
        """What a model takes: from its package, or from the machine where it runs. Raises
        StartError."""
        runs_here = self.kind(package.name) == LOCAL
        if package.runner:
            try:
                return await describe(package)
            except StartError:
                if runs_here:
                    raise
        # What it needs is installed there, and need not be here.
        return Description(await self._remote_schema(package.name), 1)

    async def _remote_schema(self, home: str) -> Mapping[str, Json]:
        """What a model takes that runs elsewhere, as it says there. Raises StartError."""
        options = self._remotes[home][0]
        limit_s = MODAL_SCHEMA_LIMIT_S if options.kind is Kind.MODAL else SCHEMA_LIMIT_S
        backend = make_backend(options)
        try:
            async with asyncio.timeout(limit_s):
                return await backend.schema()
        except TimeoutError as error:
            raise StartError(f"its back-end did not say within {limit_s:.0f} s") from error
        finally:
            await backend.close()

    def _add(self, name: str, model: ModelSettings, settings: Settings, clock: Clock) -> None:
        has_two = model.backend == "overflow"
        if name not in self.packages:
            if has_two or not NAME.fullmatch(name) or name in RESERVED:
                log.warning("model left out", extra={"model": name, "reason": _why(has_two)})
                return
            self.packages[name] = _folderless(name, settings.packages_dir)
        options = _options(model, settings)
        home = f"{name}@{options.kind.value}" if has_two else name
        self.homes[home] = replace(self.packages[name], name=home)
        self.concurrency[home] = model.remote.concurrency if model.remote else 1
        self._remotes[home] = options, make_guards(options, clock)
        if has_two:
            to_box = options.kind is not Kind.MODAL and bool(options.url)
            self.labels[home] = name
            self.rules[name] = OverflowRule(home, model.overflow_after_s, to_box)


def _why(has_two: bool) -> str:
    if has_two:
        return "overflow needs a package here, and there is none of that name"
    return "its name must be lower-case letters, digits, '-' and '_', and no path of the router's"


def _folderless(name: str, folder: Path) -> Package:
    """A model of which nothing is here but its name."""
    return Package(name=name, folder=folder / name, runner="", python=Path(sys.executable))


def _options(model: ModelSettings, settings: Settings) -> RemoteOptions:
    assert model.remote is not None, "a model without one is local"  # noqa: S101
    kind = Kind(model.remote_kind)
    allowed = model.remote.requests_per_hour
    if allowed is None and kind in PAID:
        allowed = PAID_REQUESTS_PER_HOUR
    return RemoteOptions(
        kind=kind,
        url=model.remote.url,
        model=model.remote.model,
        key=model.remote.key.get_secret_value(),
        timeout_s=model.remote.timeout_s,
        start_timeout_s=settings.setup_timeout_s,
        requests_per_hour=allowed,
        allow_private=settings.allow_private_urls,
    )
