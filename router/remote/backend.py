"""The protocol of every back-end on another machine, and how one is made from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from router.clock import Clock
from router.models.process_interface import Report
from router.prediction import Job, Json, Outcome
from router.predictions.remote_files import RemoteFiles
from router.remote.cog import CogBackend
from router.remote.files import ByUrl
from router.remote.guard import Allowance, Breaker, NotFoundWindow
from router.remote.http import RemoteHttp
from router.remote.replicate import API, ReplicateBackend


class Kind(StrEnum):
    """The kinds of remote back-ends."""

    COG = "cog"
    REPLICATE = "replicate"
    MODAL = "modal"


# The operator pays for requests to these.
PAID = frozenset({Kind.REPLICATE, Kind.MODAL})
PAID_REQUESTS_PER_HOUR = 100


class Backend(Protocol):
    """One model on another machine."""

    async def probe(self) -> None:
        """Return when the back-end takes predictions. Raises StartError when it does not."""

    async def schema(self) -> dict[str, Json]:
        """The model's OpenAPI document, in Cog's form. Raises StartError when it cannot be read."""

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction. Raises NotStartedError when it certainly did not begin, and
        MayHaveBegunError when it may run again; any other error is a failed outcome."""

    async def cancel(self, prediction_id: str) -> bool:
        """Ask for a cancel, for at most some seconds. Never raises. False when the back-end can
        only be cancelled by closing the connection."""

    async def abandon(self, prediction_id: str) -> None:
        """Stop waiting for a prediction, which may be asked for again by its id. Never raises."""

    async def close(self) -> None:
        """Close every connection. The back-end may be used again."""


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """One model's back-end. `urls`: of Cog servers, each an entry to the same back-end, or of one
    API like Replicate's. `model`: Replicate's owner/name. `key`: a bearer key; for Modal
    `token-id:token-secret`. `repeatable`: what may have begun may be sent again.
    `files_url`: at which the back-end reaches this router, "" when files travel in requests.
    `requests_per_hour`: None for no limit. `allow_private`: output files may be on private
    addresses other than those of `urls`."""

    kind: Kind
    urls: tuple[str, ...] = ()
    model: str = ""
    key: str = field(default="", repr=False)
    timeout_s: float = 600.0
    start_timeout_s: float = 600.0
    repeatable: bool = False
    files_url: str = ""
    requests_per_hour: int | None = None
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Guards:
    """The state of a back-end that outlives its process objects."""

    allowance: Allowance
    breaker: Breaker
    no_server: NotFoundWindow  # counted at starts
    no_model: NotFoundWindow  # counted at predictions: its health may be good all the same


def make_guards(options: RemoteOptions, clock: Clock) -> Guards:
    """New guards, with nothing spent, the breaker closed and nothing missing."""
    allowance = Allowance(options.requests_per_hour, clock)
    return Guards(allowance, Breaker(clock), NotFoundWindow(clock), NotFoundWindow(clock))


def make_backend(options: RemoteOptions, files: RemoteFiles | None = None) -> Backend:
    """The back-end of these options, not yet connected. `files`: needed for predictions with files
    by URL. Raises ValueError when the name of a
    Replicate model is not valid."""
    if options.kind is Kind.REPLICATE:
        urls, key = options.urls or (API,), _bearer(options.key)
        http = RemoteHttp(urls, key, allow_private=options.allow_private)
        return ReplicateBackend(http, options.model, timeout_s=options.timeout_s)
    is_modal = options.kind is Kind.MODAL
    key = _modal_token(options.key) if is_modal else _bearer(options.key)
    return CogBackend(
        RemoteHttp(options.urls, key),
        timeout_s=options.timeout_s,
        start_timeout_s=options.start_timeout_s,
        is_modal=is_modal,
        repeatable=options.repeatable,
        by_url=ByUrl(files, options.files_url, options.timeout_s)
        if files and options.files_url
        else None,
    )


def _bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _modal_token(key: str) -> Mapping[str, str]:
    """Modal's proxy token: https://modal.com/docs/guide/webhook-proxy-auth."""
    token_id, _, secret = key.partition(":")
    return {"Modal-Key": token_id, "Modal-Secret": secret} if key else {}
