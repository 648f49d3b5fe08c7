"""One request is one request, a head has a bound: whatever the bytes on the connection are."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.raw_http import Answer, connected, exchange, post
from tests.e2e.service import Service, running_service
from tests.waiting import wait_until

BIN = Path(sys.executable).parent
WAYS = {
    "uvicorn api:app": [str(BIN / "uvicorn"), "api:app"],
    "callme serve": [str(BIN / "callme"), "serve"],
    "callme up": [str(BIN / "callme"), "up"],
}
PREDICTIONS = "/models/echo/predictions"
INPUT = json.dumps({"input": {"text": "hello"}}).encode()
SMUGGLED = post("/smuggled", b"")
MIB = 1 << 20
OPEN_BODY = (
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def port_of(service: Service) -> int:
    """Where it listens."""
    return int(service.url.rpartition(":")[2])


@pytest.fixture(scope="module", params=WAYS)
def any_way(
    request: pytest.FixtureRequest, echo_packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service, started in each of the ways that the documents name."""
    state = tmp_path_factory.mktemp("way") / "state"
    with running_service(echo_packages, state, argv=WAYS[request.param]) as service:
        yield service


def text_of(answers: list[Answer]) -> list[object]:
    """What the echo model got, or the status."""
    return [a.json()["output"]["text"] if a.status == 200 else a.status for a in answers]


OFFERS = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAQAAP"),
    "websocket": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "several": (b"Connection: keep-alive, upgrade", b"Upgrade: h2c, websocket/13", b"Upgrade: x"),
    "unknown": (b"Connection: Upgrade", b"Upgrade: TLS/1.0"),
    "connection only": (b"Connection: Upgrade",),
    "upgrade only": (b"Upgrade: h2c",),
}


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("pieces", ["one", "two", "many"])
def test_an_offer_to_upgrade(any_way: Service, offer: str, pieces: str) -> None:
    """The request is answered with its body in it, once, however it is cut into packets; so is
    the next one on the same connection."""
    whole = post(PREDICTIONS, INPUT, *OFFERS[offer])
    cuts = {"one": [], "two": [len(whole) - len(INPUT)], "many": [1, 30, len(whole) - 5]}[pieces]
    edges = [0, *cuts, len(whole)]
    parts = [whole[a:b] for a, b in itertools.pairwise(edges)]
    plain = post(PREDICTIONS, INPUT.replace(b"hello", b"again"))
    assert text_of(exchange(port_of(any_way), *parts, plain)) == ["hello", "again"]


@pytest.mark.parametrize("offer", OFFERS)
def test_a_request_in_a_body(any_way: Service, offer: str) -> None:
    """Bytes of a body are a body, though they look like a request and come in a later packet."""
    whole = post("/echo", SMUGGLED, *OFFERS[offer])
    head = whole[: -len(SMUGGLED)]
    answers = exchange(port_of(any_way), head, SMUGGLED)
    assert [a.status for a in answers] == [415]
    chunked = head.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    assert [a.status for a in exchange(port_of(any_way), chunked, body)] == [415]
    assert "/smuggled" not in any_way.log()


HEAD = b"POST /smuggled HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "CONNECT": b"CONNECT smuggled:80 HTTP/1.1\r\nHost: smuggled:80\r\n\r\n",
    "content-length and chunked": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "chunked and content-length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    b"0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 4\r\n\r\n",
    "one length twice": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": HEAD + b"Content-Length: 0, 0\r\n\r\n",
    "a signed length": HEAD + b"Content-Length: +0\r\n\r\n",
    "a length over 2^64": HEAD + b"Content-Length: 18446744073709551616\r\n\r\n",
    "a folded field": HEAD + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
    "one bare line feed": HEAD + b"X-A: b\nContent-Length: 0\r\n\r\n",
    "a bare carriage return": HEAD + b"X-A: b\rContent-Length: 0\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 0\r\n\r\n",
    "a space before chunked's colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "two hosts": HEAD + b"Host: other\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"GET /smuggled\r\n\r\n",
    "HTTP/2.0": b"GET /smuggled HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a zero byte": HEAD + b"X-A: \0\r\nContent-Length: 0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_not_http(echo: Service, broken: str) -> None:
    """A head that two servers could read in two ways is refused in the one error shape, and
    nothing after it is read."""
    (refusal,) = exchange(port_of(echo), BROKEN[broken] + SMUGGLED)
    assert (refusal.status, refusal.json()["error"]["code"]) == (400, "malformed_request")
    assert refusal.headers["connection"] == "close"
    assert refusal.headers["x-content-type-options"] == "nosniff"
    assert "/smuggled" not in echo.log()


def test_the_shape_is_the_apis(echo: Service) -> None:
    """What is refused before any handler sees it looks like every error of its API."""
    broken = b"GET /v1/predictions HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    (refusal,) = exchange(port_of(echo), broken)
    problem = refusal.json()
    assert (problem["status"], problem["code"]) == (400, "malformed_request")
    assert problem["detail"]


@pytest.mark.parametrize(
    "chunks",
    [
        b"1\nx\n0\n\n",
        b"1;a\nb\r\nx\r\n0\r\n\r\n",
        b"f" * 17 + b"\r\nx",
        b"1\r\nxx0\r\n\r\n",
        b"-1\r\n",
    ],
)
def test_chunks_that_are_none(echo: Service, chunks: bytes) -> None:
    """The request has begun, and is given up."""
    head = (
        post("/echo", b"").partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert [a.status for a in exchange(port_of(echo), head + chunks + SMUGGLED)] in ([400], [415])
    assert "/smuggled" not in echo.log()


def test_requests_in_a_row(echo: Service) -> None:
    """What is sent before its turn waits, and is answered in order; a mistake after it takes
    nothing from it, and is answered last."""
    texts = [f"{n}" for n in range(40)]
    row = b"".join(post(PREDICTIONS, INPUT.replace(b"hello", t.encode())) for t in texts)
    assert text_of(exchange(port_of(echo), row)) == texts
    assert text_of(exchange(port_of(echo), row + b"BROKEN\0\r\n\r\n")) == [*texts, 400]
    last = post(PREDICTIONS, INPUT, b"Connection: close")
    assert text_of(exchange(port_of(echo), last + SMUGGLED)) == ["hello"]
    assert "/smuggled" not in echo.log()


@pytest.fixture(scope="module")
def closed(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that wants a key, which nobody here has."""
    state = tmp_path_factory.mktemp("closed") / "state"
    env = {"CALLME_KEYS": "somebody:0123456789abcdef0123456789abcdef"}
    with running_service(echo_packages, state, env) as service:
        yield service


def flood(service: Service, start: bytes, piece: bytes) -> Answer | None:
    """The answer to `start` and then `piece` again and again, 48 MiB in all."""
    with connected(port_of(service)) as raw:
        raw.socket.sendall(start)
        with contextlib.suppress(ConnectionError):
            for _ in range(48 * MIB // len(piece)):
                raw.socket.sendall(piece)
        return raw.answer()


FLOODS = {
    "one value": (b"GET / HTTP/1.1\r\nX-A: ", b"a" * 65536, 431),
    "one name": (b"GET / HTTP/1.1\r\nX", b"a" * 65536, 431),
    "many fields": (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n" * 8192, 431),
    "a URL": (b"GET /", b"a" * 65536, 414),
    "a query": (b"GET /health?", b"a=b&" * 16384, 414),
    "an offer to upgrade": (
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-A: ",
        b"a" * 65536,
        431,
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_head_without_end(closed: Service, name: str) -> None:
    """Refused before authentication, without the memory to hold it."""
    start, piece, status = FLOODS[name]
    process = psutil.Process(closed.child.pid)
    before = process.memory_info().rss
    answer = flood(closed, start, piece)
    assert answer is not None
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.json()["error"]["code"] in {"request_head_too_large", "uri_too_long"}
    assert process.memory_info().rss - before < 8 * MIB
    assert closed.http.get("/health").status_code == 200


def test_a_head_in_tiny_pieces(closed: Service) -> None:
    """Counted over all of them: the limit is one of the head, not of a packet."""
    with connected(port_of(closed)) as raw:
        raw.socket.sendall(b"GET / HTTP/1.1\r\n")
        sent = 0
        while sent < 128 << 10:  # of 16 bytes each, with a limit of 64 KiB
            try:
                raw.socket.sendall(b"X-%07d: abcd\r\n" % sent)
            except ConnectionError:
                break
            sent += 16
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 431


@pytest.mark.parametrize("size", [63 << 10, 66 << 10])
def test_the_bound_is_exact(echo: Service, size: int) -> None:
    """A head of 63 KiB is read, one of 66 is not, though both come in one packet."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * size + b"\r\n\r\n"
    (answer,) = exchange(port_of(echo), request)
    assert answer.status == (200 if size < 64 << 10 else 431)


@pytest.mark.parametrize(
    "start",
    [b"1;x=", b"1\r\nx\r\n0\r\nX-A: "],
    ids=["a chunk's extension", "a trailer field"],
)
def test_a_body_without_bytes(echo: Service, start: bytes) -> None:
    """What a body has besides its bytes is bounded too."""
    process = psutil.Process(echo.child.pid)
    before = process.memory_info().rss
    head = OPEN_BODY.replace(b"/echo", PREDICTIONS.encode())
    answer = flood(echo, head + start, b"a" * 65536)
    assert answer is not None
    assert (answer.status, answer.json()["error"]["code"]) == (431, "request_head_too_large")
    assert process.memory_info().rss - before < 8 * MIB


def test_both_ways_run_on_uvloop(any_way: Service) -> None:
    """The loop does not depend on the way that the service is started."""
    maps = Path(f"/proc/{any_way.child.pid}/maps").read_text()
    assert "/uvloop/" in maps


def limited(argv: list[str], soft: int, hard: int) -> list[str]:
    """The command with these limits of open files."""
    script = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    return ["bash", "-c", script, "bash", *argv]


@pytest.mark.parametrize("way", ["uvicorn api:app", "callme serve"])
def test_more_idle_connections_than_descriptors(
    way: str, echo_packages: Path, tmp_path: Path
) -> None:
    """300 connections that say nothing or half a head, and 256 descriptors: the service answers
    while they are there and afterwards, and the log does not grow with them."""
    argv = limited(WAYS[way], 256, 256)
    with running_service(echo_packages, tmp_path / "state", argv=argv) as service:
        port = port_of(service)
        with contextlib.ExitStack() as idle:
            for number in range(300):
                raw = idle.enter_context(connected(port))
                if number % 2:
                    raw.socket.sendall(b"GET /health HT")
            health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert [a.status for a in wait_until(lambda: exchange(port, health))] == [200]
            answer = service.http.post("/echo", files={"text": (None, "a")})
            assert answer.json().get("text") == "a", answer.text
            log_bytes = len(service.log())
        assert service.http.get("/health").status_code == 200
    assert log_bytes < 16 << 10


def test_the_soft_limit_is_raised(echo_packages: Path, tmp_path: Path) -> None:
    """A shell's soft limit of 256 is not what the service has to live with."""
    argv = limited(WAYS["uvicorn api:app"], 256, 2000)
    with running_service(echo_packages, tmp_path / "state", argv=argv) as service:
        soft, _ = psutil.Process(service.child.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft == 2000
