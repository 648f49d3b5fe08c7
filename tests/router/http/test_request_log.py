"""Every answer has a request id, is logged in one line and counted under its route."""

from __future__ import annotations

import logging
import re
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from router.http.request_log import TRACE as TRACE_KEY
from router.http.request_log import BeginTrace, RequestLog
from router.observability.facts import Fact, Facts, RequestEnded
from router.observability.metrics import PrometheusMetrics
from router.trace_context import TraceContext


@pytest.fixture
def facts() -> Facts:
    """Where the requests are reported."""
    return Facts(delay_s=0)


@pytest.fixture
def metrics(facts: Facts) -> PrometheusMetrics:
    """What the requests are counted in."""
    return PrometheusMetrics(facts)


@pytest.fixture
def client(facts: Facts) -> httpx.AsyncClient:
    """A client of an application with one route that answers and one that has a bug."""

    async def answering(request: Request) -> Response:
        return PlainTextResponse(request.scope["callme_request_id"])

    async def buggy(request: Request) -> Response:
        raise ValueError

    app = Starlette()
    app.add_route("/bug", buggy, methods=["GET"])
    app.add_route("/items/{item}", answering, methods=["GET"])
    transport = httpx.ASGITransport(app=RequestLog(app, facts), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


@pytest.mark.parametrize("given", ["web-77", "A_b-9", "x" * 64])
async def test_the_clients_own_id_is_kept(client: httpx.AsyncClient, given: str) -> None:
    """In the answer and for the handlers."""
    answer = await client.get("/items/1", headers={"X-Request-Id": given})
    assert answer.headers.get_list("x-request-id") == [given]
    assert answer.text == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", 'a"b', "a.b", "a\tb"])
async def test_others_are_replaced(client: httpx.AsyncClient, given: str | None) -> None:
    """What could not stand in a log line or a header is not repeated; each gets its own."""
    headers = {} if given is None else {"X-Request-Id": given}
    ids = {(await client.get("/items/1", headers=headers)).headers["x-request-id"] for _ in "ab"}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", i) for i in ids)


async def test_errors_have_one_too(client: httpx.AsyncClient, metrics: PrometheusMetrics) -> None:
    """404, 405 and the answer to a bug."""
    for method, path, status in (("GET", "/no", 404), ("PUT", "/bug", 405), ("GET", "/bug", 500)):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["x-request-id"]
    labels = {"route": "/bug", "method": "GET", "status": "500"}
    assert metrics.registry.get_sample_value("callme_http_requests_total", labels) == 1.0


async def test_routes_are_templates(client: httpx.AsyncClient, metrics: PrometheusMetrics) -> None:
    """A thousand paths are two routes: the label must not grow with what clients ask for."""
    for i in range(500):
        await client.get(f"/items/{i}")
        await client.get(f"/nowhere/{i}")
    text = metrics.exposition().decode()
    routes = set(re.findall(r'callme_http_requests_total\{[^}]*route="([^"]*)"', text))
    assert routes == {"/items/{item}", "unmatched"}


def logged(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The fields of the one line for a request."""
    (line,) = [r for r in caplog.records if r.name == "router.http.request_log"]
    assert (line.message, line.levelname) == ("request", "INFO")
    return vars(line)


async def test_one_line_in_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With id, method, path, route, status and seconds."""
    caplog.set_level("INFO")
    await client.get("/items/1", headers={"X-Request-Id": "web-77"})
    fields = logged(caplog)
    assert (fields["request_id"], fields["method"], fields["path"]) == ("web-77", "GET", "/items/1")
    assert (fields["route"], fields["status"]) == ("/items/{item}", 200)
    assert 0 <= fields["seconds"] < 1


async def test_no_control_characters_in_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A path is logged as it was sent: percent-encoded."""
    caplog.set_level("INFO")
    await client.get("/items/%1b%5b2J%0Anext")
    assert logged(caplog)["path"] == "/items/%1B%5B2J%0Anext"


async def test_a_long_path_is_cut_in_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A line has a bound, however much a client without a key asks for."""
    caplog.set_level("INFO")
    await client.get("/items/" + "%1b" * 5000)
    assert len(logged(caplog)["path"]) <= 1500


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def traced_client(facts: Facts, begin: BeginTrace | None) -> httpx.AsyncClient:
    """A client of an application that shows the trace that a handler sees."""

    async def answering(request: Request) -> Response:
        trace = request.scope.get(TRACE_KEY)
        return PlainTextResponse(trace.header if trace else "none")

    app = Starlette()
    app.add_route("/items/{item}", answering, methods=["GET", "POST"])
    transport = httpx.ASGITransport(app=RequestLog(app, facts, begin))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_a_callers_trace_goes_on_when_none_are_reported(
    facts: Facts, caplog: pytest.LogCaptureFixture
) -> None:
    """In the answer, for the handlers and in the log. A request without one gets none."""
    caplog.set_level(logging.INFO)
    async with traced_client(facts, None) as client:
        got = await client.get("/items/1", headers={"traceparent": PARENT})
        assert got.text == got.headers["traceresponse"] == PARENT
        other = await client.post("/items/1")
        assert other.text == "none"
        assert "traceresponse" not in other.headers
        twice = [("traceparent", PARENT), ("traceparent", PARENT)]
        assert (await client.get("/items/1", headers=twice)).text == "none"
    logged = [getattr(r, "trace_id", None) for r in caplog.records if r.message == "request"]
    assert logged == [TRACE, None, None]


async def test_a_request_begins_a_trace(facts: Facts) -> None:
    """A POST does, and a GET only continues one: probes and polls would begin one each time."""
    ended: list[Fact] = []
    facts.add(ended.append)
    own = TraceContext("1" * 32, "2" * 16, recorded=True)
    parents: list[TraceContext | None] = []

    def begin(parent: TraceContext | None) -> TraceContext:
        parents.append(parent)
        return own

    async with traced_client(facts, begin) as client:
        assert (await client.get("/items/1")).text == "none"
        assert (await client.post("/items/1")).headers["traceresponse"] == own.header
        states = [("traceparent", PARENT), ("tracestate", "a=b"), ("tracestate", "c=d")]
        assert (await client.get("/items/1", headers=states)).text == own.header
    assert parents == [None, TraceContext(TRACE, SPAN, state="a=b,c=d")]
    traces = [fact.trace for fact in ended if isinstance(fact, RequestEnded)]
    assert traces == [None, own, own]
