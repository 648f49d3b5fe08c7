"""Callers' URLs that lead to the box itself: refused by all three APIs, never connected to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.service import Service
from tests.waiting import free_port

HOSTS = (
    "127.0.0.1",
    "localhost",
    "１２７.０.０.１",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "[::ffff:127.0.0.1]",
)


@pytest.fixture(scope="module")
def trap() -> Iterator[socket.socket]:
    """Listens and accepts nobody: a connection would stay in its queue."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.setblocking(False)
        yield listener


def refusals(echo: Service, url: str) -> list[tuple[int, Any]]:
    """What each API says to a file at that URL, and to a webhook there."""
    body = {"input": {"file": url}}
    hook = {"input": {"text": "x"}, "webhook": url}
    answers = [
        echo.http.post("/echo", files={"file": (None, url)}),
        echo.http.post("/models/echo/predictions", json=body),
        echo.http.post("/v1/models/me/echo/predictions", json=body),
        echo.http.post("/models/echo/predictions", json=hook),
        echo.http.post("/v1/models/me/echo/predictions", json=hook),
    ]
    return [(a.status_code, a.json()) for a in answers]


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_leads_into_the_box(host: str, echo: Service, trap: socket.socket) -> None:
    """With the default settings. An open port is answered as a closed one is."""
    answers = refusals(echo, f"http://{host}:{trap.getsockname()[1]}/x.png")
    assert [status for status, _ in answers] == [422] * 5
    assert answers == refusals(echo, f"http://{host}:{free_port()}/x.png")
    with pytest.raises(BlockingIOError):
        trap.accept()
    assert echo.spooled() == []
