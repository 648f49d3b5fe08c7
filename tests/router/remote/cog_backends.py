"""Back-ends of kind `cog`, and what the tests of them ask and expect."""

from __future__ import annotations

import pytest

from router.prediction import Outcome, Progress
from router.remote.backend import Kind, RemoteOptions, make_backend
from router.remote.cog import CogBackend

pytestmark = pytest.mark.slow

SUCCEEDED = {"id": "p1", "status": "succeeded", "output": {"x": 1}, "metrics": {"predict_time": 2}}
PREDICT = "POST /predictions"
ASK = "GET /predictions/p1"
KEY = "k" * 16


def ignore(progress: Progress) -> None:
    """Progress is not looked at here."""


def backend_of(
    *urls: str, kind: Kind = Kind.COG, timeout_s: float = 60.0, key: str = KEY, again: bool = False
) -> CogBackend:
    """The back-end as the router makes it."""
    options = RemoteOptions(
        kind, urls, key=key, timeout_s=timeout_s, start_timeout_s=60.0, repeatable=again
    )
    backend = make_backend(options)
    assert isinstance(backend, CogBackend)
    return backend


def code(outcome: Outcome) -> str:
    """The code of its failure."""
    assert outcome.failure is not None, outcome
    return outcome.failure.code
