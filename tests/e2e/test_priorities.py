"""Whose turn it is, as clients ask for it."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.service import Service
from tests.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}


def submitted(echo: Service, path: str, priority: str, **request: Any) -> str:
    """An asynchronous prediction's id."""
    headers = {**ASYNC, "X-Callme-Priority": priority}
    answer: httpx.Response = echo.http.post(path, headers=headers, **request)
    assert answer.status_code in (201, 202), answer.text
    return str(answer.json()["id"])


def test_the_urgent_go_first(echo: Service) -> None:
    """On every API: the queue is ordered by priority, not by who came first."""
    body = {"input": {"text": "x"}}
    blocker = submitted(echo, "/echo", "1", files={"delay_s": (None, "60")})
    wait_until(lambda: echo.model("echo")["state"] == "busy")
    last = submitted(echo, "/v1/models/a/echo/predictions", "2", json=body)
    middle = submitted(echo, "/models/echo/predictions", "1", json=body)
    first = submitted(echo, "/echo", "0", files={"text": (None, "x")})
    queue = echo.model("echo")["queue"]
    assert [place["id"] for place in queue] == [first, middle, last]
    assert queue[0]["eta_s"] < queue[1]["eta_s"] < queue[2]["eta_s"]
    place = echo.http.get(f"/predictions/{last}").json()["queue"]
    assert place["position"] == 3
    assert place["eta_s"] > 0
    for prediction_id in (last, middle, first, blocker):
        echo.http.post(f"/predictions/{prediction_id}/cancel")
    wait_until(lambda: echo.model("echo")["state"] == "ready")


def test_no_such_priority(echo: Service) -> None:
    """It is said, not guessed."""
    answer = echo.http.post(
        "/echo", files={"text": (None, "x")}, headers={"X-Callme-Priority": "urgent"}
    )
    assert answer.status_code == 400
    assert "X-Callme-Priority" in answer.json()["error"]["message"]
