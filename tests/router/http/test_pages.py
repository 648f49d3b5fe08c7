"""The page for people: who gets it, with which headers, and that it shows nothing of the box."""

from __future__ import annotations

import gzip
import re
import sys

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from router.http.pages import Pages
from router.http.request_log import RequestLog
from router.observability.facts import Facts
from router.pages.files import STATIC, shell, static_file

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
# Everything that a browser fetches before anybody does anything, gzipped.
MOST_BYTES = 150_000


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """The rest of the router, which would ask for a key."""
    await PlainTextResponse("behind", 401)(scope, receive, send)


def client() -> httpx.AsyncClient:
    """A client of the layer."""
    transport = httpx.ASGITransport(app=Pages(behind))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7777")


@pytest.mark.parametrize("path", ["/", "/models/any", "/predictions", "/predictions/x1", "/docs"])
async def test_a_browser_gets_the_page(path: str) -> None:
    """Without a key, with nothing inline, and with links that work below any folder."""
    async with client() as http:
        answer = await http.get(path, headers=BROWSER)
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/html; charset=utf-8",
        )
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["vary"] == "Accept, Accept-Encoding"
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", answer.text)
        linked = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
        assert len(linked) > 5
        for link in linked:
            found = await http.get(str(answer.url.join(link)))
            assert found.status_code == 200, link


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/", "*/*"),
        ("GET", "/models/any", "application/json"),
        ("GET", "/predictions/x1", "*/*"),
        ("GET", "/status", "text/html"),
        ("GET", "/models/any/logs", "text/html"),
        ("GET", "/predictions/x1/cancel", "text/html"),
        ("POST", "/", "text/html"),
        ("POST", "/models/any", "text/html"),
        ("GET", "/static/index.html", "text/html"),
        ("GET", "/static/../files.py", "*/*"),
        ("GET", "/static/%2e%2e/files.py", "*/*"),
        ("GET", "/static/", "*/*"),
    ],
)
async def test_everything_else_needs_what_it_needed(method: str, path: str, accept: str) -> None:
    """An API client gets its JSON, and no path leads to a file that is not the page's."""
    async with client() as http:
        answer = await http.request(method, path, headers={"Accept": accept})
    assert (answer.status_code, answer.text) == (401, "behind")


async def test_a_file_is_packed_and_asked_for_once() -> None:
    """A browser that has it is answered 304; HEAD has the length of what GET gives."""
    async with client() as http:
        got = await http.get("/static/app.css", headers={"Accept-Encoding": "gzip"})
        assert (got.headers["content-encoding"], got.headers["content-type"]) == (
            "gzip",
            "text/css; charset=utf-8",
        )
        assert got.content == (STATIC / "app.css").read_bytes()
        plain = await http.get("/static/app.css", headers={"Accept-Encoding": "identity"})
        assert plain.content == got.content
        assert "content-encoding" not in plain.headers
        again = await http.get("/static/app.css", headers={"If-None-Match": got.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await http.head("/static/app.css", headers={"Accept-Encoding": "identity"})
        assert (head.content, int(head.headers["content-length"])) == (b"", len(plain.content))


async def test_it_is_counted_by_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Not among the paths that do not exist."""
    caplog.set_level("INFO")
    app = RequestLog(Pages(behind), Facts(delay_s=0))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7777") as http:
        await http.get("/models/any", headers=BROWSER)
        await http.get("/static/app.css")
        await http.get("/static/nothing.css")
    routes = [vars(r)["route"] for r in caplog.records if r.name == "router.http.request_log"]
    assert routes == ["page", "/static/{path}", "unmatched"]


def test_it_is_small_and_names_no_model() -> None:
    """All files together, as they are sent; and the page asks no other host for anything."""
    sent = len(shell(0).packed)
    for path in STATIC.rglob("*.*"):
        if path.name != "index.html":
            file = static_file(path.relative_to(STATIC).as_posix())
            assert file is not None
            assert gzip.decompress(file.packed) == path.read_bytes()
            sent += len(file.packed)
        text = path.read_text()
        assert not re.search(r"fluency|grounding|sketch2real", text), path.name
        hosts = set(re.findall(r"https?://([\w.-]+)", text)) - {"www.w3.org"}
        assert not hosts, f"{path.name}: {hosts}"
    assert sent < MOST_BYTES


async def test_a_prediction_costs_one_call_of_the_page() -> None:
    """A JSON prediction is passed on by a single call: the page makes no other path slower."""
    called: list[str] = []

    async def prediction(scope: Scope, receive: Receive, send: Send) -> None:
        """What the page's layer passes the request to."""

    async def receive() -> Message:
        raise AssertionError("read by the page")

    async def send(message: Message) -> None:
        raise AssertionError(f"answered by the page: {message}")

    scope = {"type": "http", "method": "POST", "path": "/models/any/predictions", "headers": []}
    layer = Pages(prediction)
    sys.setprofile(
        lambda frame, event, _: called.append(frame.f_code.co_qualname) if event == "call" else None
    )
    try:
        await layer(scope, receive, send)
    finally:
        sys.setprofile(None)
    assert [c.rsplit(".", 1)[-1] for c in called] == ["__call__", "prediction"]
