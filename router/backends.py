"""Where each model runs, from the settings: what the loop, the predictions and the APIs need.

To the scheduler, a model that runs only at a remote is one model, like every other. A model that
overflows is two: `name` is the local one, and `name@modal` (or `@cog`, `@replicate`) is the
remote. The APIs see only `name`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from router.clock import Clock
from router.model_settings import ModelSettings
from router.models.catalog import NAME, RESERVED, Package
from router.models.process_interface import StartError
from router.models.schemas import Description, describe
from router.prediction import Json, Prediction
from router.predictions.overflow import OverflowRule
from router.predictions.remote_files import RemoteFiles
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
from router.settings import Settings

log = logging.getLogger(__name__)

LOCAL = "local"
# The limit is short: callers wait for the schema, and may ask again.
SCHEMA_LIMIT_S = 5.0
# Longer, as a container may have to start first.
MODAL_SCHEMA_LIMIT_S = 60.0


class Backends:
    """Where each model runs.

    `packages`: the models as the APIs know them. `scheduled`: the packages as the scheduler knows
    them, each with its `concurrency`; those in `remote_models` take no memory here. `rules`: the
    models that overflow, by name. `labels`: the name of each such model by its remote's name, for
    messages. `left_out`: why a package is not served, by its folder's name.
    """

    def __init__(
        self,
        settings: Settings,
        local: Mapping[str, Package],
        clock: Clock,
        *,
        left_out: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.left_out = left_out
        self.packages = dict(local)
        self.scheduled = dict(local)
        self.concurrency = dict.fromkeys(local, 1)
        self.rules: dict[str, OverflowRule] = {}
        self.labels: dict[str, str] = {}
        self._remotes: dict[str, tuple[RemoteOptions, Guards]] = {}
        for name, model in settings.models.items():
            if model.remote_kind:
                self._add(name, model, settings, clock)
        self.remote_models = frozenset(self._remotes)

    def kind(self, target: str) -> str:
        """What runs the model: `local`, `cog`, `replicate` or `modal`."""
        remote = self._remotes.get(target)
        return remote[0].kind.value if remote else LOCAL

    def runs_here(self, p: Prediction) -> bool:
        """Whether the prediction ran on this machine and not at a remote."""
        return not p.remote_name and self.kind(p.model) == LOCAL

    def process(self, target: str, files: RemoteFiles | None = None) -> RemoteProcess | None:
        """A new process of a model that runs at a remote, None for a local one."""
        remote = self._remotes.get(target)
        if remote is None:
            return None
        backend = make_backend(remote[0], files)
        return RemoteProcess(backend, remote[1], repeatable=remote[0].repeatable)

    def replace(self, package: Package) -> None:
        """Use this package of a model that runs here from its next start on."""
        self.packages[package.name] = self.scheduled[package.name] = package

    async def describe(self, package: Package) -> Description:
        """The schema of a model: from its package, or from the machine where it runs. Raises
        StartError when it cannot be read."""
        runs_here = self.kind(package.name) == LOCAL
        if package.runner:
            try:
                return await describe(package)
            except StartError:
                if runs_here:
                    raise
        # The remote has what the package needs; it need not be installed here.
        return Description(await self._remote_schema(package.name), 1)

    async def _remote_schema(self, target: str) -> Mapping[str, Json]:
        """The schema of a model from its remote. Raises StartError when it does not answer."""
        options = self._remotes[target][0]
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
        target = f"{name}@{options.kind.value}" if has_two else name
        self.scheduled[target] = replace(self.packages[name], name=target)
        self.concurrency[target] = model.remote.concurrency if model.remote else 1
        self._remotes[target] = options, make_guards(options, clock)
        if has_two:
            to_box = options.kind is not Kind.MODAL and bool(options.urls)
            self.labels[target] = name
            self.rules[name] = OverflowRule(target, model.overflow_after_s, to_box)


def _why(has_two: bool) -> str:
    if has_two:
        return "overflow needs a package here, and there is none of that name"
    return "its name must be lower-case letters, digits, '-' and '_', and no path of the router"


def _folderless(name: str, folder: Path) -> Package:
    """A package for a model that has no folder here."""
    return Package(name=name, folder=folder / name, runner="", python=Path(sys.executable))


def _options(model: ModelSettings, settings: Settings) -> RemoteOptions:
    assert model.remote is not None, "a model without one is local"  # noqa: S101
    kind = Kind(model.remote_kind)
    allowed = model.remote.requests_per_hour
    if allowed is None and kind in PAID:
        allowed = PAID_REQUESTS_PER_HOUR
    repeatable = model.remote.repeatable
    return RemoteOptions(
        kind=kind,
        urls=model.remote.urls,
        model=model.remote.model,
        key=model.remote.key.get_secret_value(),
        timeout_s=model.remote.timeout_s,
        files_url=model.remote.files_url,
        start_timeout_s=settings.setup_timeout_s,
        repeatable=(allowed is None and kind is Kind.COG) if repeatable is None else repeatable,
        requests_per_hour=allowed,
        allow_private=settings.allow_private_urls,
    )
