"""What every back-end on another machine is, and how one is made from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from router.clock import Clock
from router.models.process import Report
from router.prediction import Job, Json, Outcome
from router.remote.cog import CogBackend
from router.remote.guard import Allowance, Breaker
from router.remote.http import RemoteHttp
from router.remote.replicate import API, ReplicateBackend


class Kind(StrEnum):
    """Where a model runs that does not run here."""

    COG = "cog"
    REPLICATE = "replicate"
    MODAL = "modal"


# Somebody is sent a bill for these.
PAID = frozenset({Kind.REPLICATE, Kind.MODAL})
PAID_REQUESTS_PER_HOUR = 100


class Backend(Protocol):
    """One model on another machine."""

    async def probe(self) -> None:
        """Return when it takes predictions. Raises StartError."""

    async def schema(self) -> dict[str, Json]:
        """Its OpenAPI document, as Cog has it. Raises StartError."""

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction. Raises NotStartedError when it certainly never began; every other
        trouble is a failed outcome."""

    async def cancel(self, prediction_id: str) -> bool:
        """Ask for a cancel, for some seconds; never raises. False when only hanging up tells
        the back-end."""

    async def abandon(self, prediction_id: str) -> None:
        """Nobody waits for it now; it may be asked for again, under its id. Never raises."""

    async def close(self) -> None:
        """Close every connection. It may be used again."""


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """One model's back-end. `url`: of a Cog server, or of another API like Replicate's.
    `model`: Replicate's owner/name. `key`: a bearer key; for Modal `token-id:token-secret`.
    `requests_per_hour`: None for no limit. `allow_private`: files of its outputs may be on
    private addresses other than `url`'s."""

    kind: Kind
    url: str = ""
    model: str = ""
    key: str = field(default="", repr=False)
    timeout_s: float = 600.0
    start_timeout_s: float = 600.0
    requests_per_hour: int | None = None
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Guards:
    """What is remembered of a back-end from one process object to the next."""

    allowance: Allowance
    breaker: Breaker


def make_guards(options: RemoteOptions, clock: Clock) -> Guards:
    """Fresh ones."""
    return Guards(Allowance(options.requests_per_hour, clock), Breaker())


def make_backend(options: RemoteOptions) -> Backend:
    """The back-end of these options, not yet connected. Raises ValueError for a Replicate model
    that cannot be one."""
    if options.kind is Kind.REPLICATE:
        url, key = options.url or API, _bearer(options.key)
        http = RemoteHttp(url, key, allow_private=options.allow_private)
        return ReplicateBackend(http, options.model, timeout_s=options.timeout_s)
    is_modal = options.kind is Kind.MODAL
    key = _modal_token(options.key) if is_modal else _bearer(options.key)
    return CogBackend(
        RemoteHttp(options.url, key),
        timeout_s=options.timeout_s,
        start_timeout_s=options.start_timeout_s,
        is_modal=is_modal,
    )


def _bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _modal_token(key: str) -> Mapping[str, str]:
    """Modal's proxy token: https://modal.com/docs/guide/webhook-proxy-auth."""
    token_id, _, secret = key.partition(":")
    return {"Modal-Key": token_id, "Modal-Secret": secret} if key else {}
