"""The short way to a model's route: taken by nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from router.http.apis.native import ROOT, ModelRoute

APP = SimpleNamespace(state=SimpleNamespace(context=SimpleNamespace(packages={"echo": None})))


async def predict(request: Request) -> Response:
    """Never called here."""
    raise NotImplementedError


def matched(method: str, path: str, kind: str = "http") -> tuple[Match, object]:
    """How a request matches, and the model that it names."""
    route = ModelRoute(ROOT, predict, methods=["POST"])
    scope = {"type": kind, "method": method, "path": path, "app": APP}
    match, found = route.matches(scope)
    return match, found.get("path_params")


def test_a_form_to_a_model() -> None:
    """It matches at once, as the route with the pattern would."""
    assert matched("POST", "/echo") == (Match.FULL, {"model": "echo"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/echo"),
        ("POST", "/metrics"),  # another route's, which answers 405
        ("POST", "/"),
        ("POST", "/echo/"),
        ("POST", "/models/echo"),
        ("POST", "/v1/v1/predictions"),
    ],
)
def test_everything_else(method: str, path: str) -> None:
    """It is compared with the other routes."""
    assert matched(method, path) == (Match.NONE, None)


def test_a_websocket() -> None:
    """There is none, so it matches nothing."""
    assert matched("POST", "/echo", "websocket") == (Match.NONE, None)
