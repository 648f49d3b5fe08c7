"""Two versions of a model side by side: which one serves a request, and how they compare.

A version of `caption` is a package called `caption@NAME`, a model like every other. With a
canary, a share of the requests for `caption` goes to it. A promotion sends all of them there and
a rollback none. Both only turn the next requests: nothing is stopped or moved, so nothing in flight
is lost.

The share is kept by error diffusion: each request adds the share, and each time the sum reaches 1
the canary gets one. So of any N requests the canary has the share to within one request, also in
the first minutes of a box with few users. A hash of the request's id would be off by chance, and a
caller who chooses ids could choose the version.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from router.errors import InsufficientStorage, InvalidInput, MethodNotAllowed
from router.observability.facts import Facts, PredictionEnded
from router.prediction import Prediction, Status
from router.storage.private_files import write_private

log = logging.getLogger(__name__)

FILE_NAME = "versions.json"
# The times of so many runs are compared.
LAST_RUNS = 1000
# Sums of shares such as 0.1 are off by less than this.
ROUNDING = 1e-9


@dataclass(slots=True)
class Canary:
    """`version`: the model that gets `share` (0 to 1) of the requests. `configured`: the share in
    the settings. When that is changed, it replaces `share`. `due`: what the canary has been due
    since its last request. `sent`: how many it got."""

    version: str
    share: float
    configured: float = 0.0
    due: float = 0.0
    sent: int = 0


@dataclass(slots=True)
class Record:
    """What became of the predictions of one version since the router's start."""

    succeeded: int = 0
    failed: int = 0
    run_s: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_RUNS))

    def add(self, p: Prediction) -> None:
        """Count a prediction that has ended. One that its caller canceled or got wrong does not
        count."""
        if p.status is Status.SUCCEEDED:
            self.succeeded += 1
            if p.started_at is not None and p.completed_at is not None:
                self.run_s.append(max(p.completed_at - p.started_at, 0.0))
        elif p.status is Status.FAILED and (not p.failure or p.failure.code != InvalidInput.code):
            self.failed += 1

    def view(self) -> dict[str, Any]:
        """Numbers for a person; None where nothing has run."""
        ended = self.succeeded + self.failed
        p95 = statistics.quantiles(self.run_s, n=20)[-1] if len(self.run_s) > 1 else None
        return {
            "succeeded": self.succeeded,
            "failed": self.failed,
            "failed_share": round(self.failed / ended, 4) if ended else None,
            "run_p50_s": round(statistics.median(self.run_s), 4) if self.run_s else None,
            "run_p95_s": None if p95 is None else round(p95, 4),
        }


class Versions:
    """The canaries of a box, by model. `is_usable`: whether a version can serve now."""

    def __init__(
        self,
        state: Path,
        canaries: Mapping[str, Canary],
        is_usable: Callable[[str], bool],
        facts: Facts,
    ) -> None:
        self._path = state / FILE_NAME
        self._canaries = dict(canaries)
        self._is_usable = is_usable
        self._facts = facts
        compared = {*self._canaries, *(c.version for c in self._canaries.values())}
        self._records = {name: Record() for name in compared}
        for model, canary in self._canaries.items():
            canary.configured = canary.share
            canary.share = self._kept_share(model, canary)
        if self._canaries:
            facts.add(self.note, PredictionEnded)

    def choose(self, model: str) -> str:
        """The version that serves the next request for the model. A canary that cannot serve gets
        no request, and none is owed to it for that time."""
        canary = self._canaries.get(model)
        if canary is None or not canary.share or not self._is_usable(canary.version):
            return model
        canary.due += canary.share
        if canary.due < 1 - ROUNDING:
            return model
        canary.due -= 1
        canary.sent += 1
        return canary.version

    async def promote(self, model: str) -> None:
        """Send all requests to the canary. Raises MethodNotAllowed when there is none, and
        InsufficientStorage when that cannot be written down; then nothing changes."""
        await self._set_share(model, 1.0, "promote")

    async def rollback(self, model: str) -> None:
        """Send no request to the canary. Raises as `promote` does."""
        await self._set_share(model, 0.0, "roll back")

    def view(self, model: str) -> dict[str, Any] | None:
        """The canary and how it compares; None for a model without one."""
        canary = self._canaries.get(model)
        if canary is None:
            return None
        self._facts.deliver()  # what has ended a moment ago counts too
        names = (model, canary.version)
        return {
            "version": canary.version,
            "share": canary.share,
            "sent": canary.sent,
            "usable": self._is_usable(canary.version),
            "compared": {name: self._records[name].view() for name in names},
        }

    def note(self, fact: PredictionEnded) -> None:
        """Count a prediction of a version. This is a listener of `router.observability.facts`."""
        record = self._records.get(fact.prediction.model)
        if record is not None:
            record.add(fact.prediction)

    async def _set_share(self, model: str, share: float, verb: str) -> None:
        canary = self._canaries.get(model)
        if canary is None:
            raise MethodNotAllowed(
                f"Cannot {verb} '{model}': it has no canary; set canary under [models.{model}]"
            )
        if share and not self._is_usable(canary.version):
            raise MethodNotAllowed(
                f"Cannot {verb} '{canary.version}': it cannot serve now, "
                f"see callme logs {canary.version}"
            )
        kept = {m: _kept(c, c.share) for m, c in self._canaries.items()}
        kept[model] = _kept(canary, share)
        try:
            await asyncio.to_thread(write_private, self._path, orjson.dumps(kept))
        except OSError as error:
            reason = f"Cannot {verb} '{model}': the state folder cannot be written"
            raise InsufficientStorage(reason) from error
        canary.share, canary.due = share, 0.0
        fields = {"model": model, "version": canary.version, "share": share}
        log.info("share of a version changed", extra=fields)

    def _kept_share(self, model: str, canary: Canary) -> float:
        """The share of the last promotion or rollback, while the settings are the same."""
        try:
            kept = orjson.loads(self._path.read_bytes())[model]
            same = (kept["version"], kept["configured"]) == (canary.version, canary.configured)
            return float(kept["share"]) if same else canary.configured
        except (FileNotFoundError, KeyError):
            return canary.configured
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read: %s", FILE_NAME, error)
            return canary.configured


def _kept(canary: Canary, share: float) -> dict[str, Any]:
    return {"version": canary.version, "configured": canary.configured, "share": share}
