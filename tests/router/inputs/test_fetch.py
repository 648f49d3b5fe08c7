"""URLs as inputs: fetched from the public internet only, in bounds, with nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from router.errors import InvalidInput, PayloadTooLarge
from router.inputs import fetch
from router.inputs.fetch import MAX_REDIRECTS, UrlFetcher
from router.keys.key import TRUSTED
from router.storage.spool import Spool
from tests.router.outbound.test_public_http import Names
from tests.waiting import free_port, until

TEXT = b"the content\n" * 1000


def _bare_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


CODED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "members": b"".join(gzip.compress(TEXT[i : i + 100]) for i in range(0, len(TEXT), 100)),
    "padded": gzip.compress(TEXT) + bytes(1000),
    "zlib": zlib.compress(TEXT),
    "bare": _bare_deflate(TEXT),
    "cut": gzip.compress(TEXT)[:-9],
    "cut-zlib": zlib.compress(TEXT)[:-5],
    "damaged": gzip.compress(TEXT)[:-8] + bytes(8),
    "bomb": gzip.compress(bytes(64 << 20)),
    "bombs": gzip.compress(bytes(1 << 20)) * 64,
    "nothing": gzip.compress(b"") * 30_000,
    "empty": b"",
}


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A web site on loopback that serves, redirects and fails."""

    async def file(request: web.Request) -> web.Response:
        return web.Response(body=b"content")

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async def hop(request: web.Request) -> web.Response:
        """Redirected `n` times more, each time as the query says, and relative to this URL."""
        n = int(request.query["n"])
        if n == 0:
            return web.Response(body=b"content")
        status = int(request.query.get("status", "302"))
        return web.Response(status=status, headers={"Location": f"?n={n - 1}"})

    async def answer(request: web.Request) -> web.Response:
        """The status in the query."""
        return web.Response(status=int(request.query["status"]))

    async def silent(request: web.Request) -> web.StreamResponse:
        """The start of a file, and never the rest."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 1000)
        await asyncio.Event().wait()
        return response

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 1000)
        return response

    async def coded(request: web.Request) -> web.Response:
        """The body and the Content-Encoding that the query names."""
        body = CODED[request.query["body"]]
        headers = {"Content-Encoding": request.query["coding"]}
        return web.Response(body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/coded.txt", coded)
    app.router.add_get("/a.PNG", file)
    app.router.add_get("/moved", moved)
    app.router.add_get("/endless", endless)
    app.router.add_get("/silent", silent)
    app.router.add_get("/answer", answer)
    app.router.add_get("/hops/", hop)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def test_fetching(site: str, tmp_path: Path) -> None:
    """The file lies in the spool, with the suffix of the URL; redirects are followed."""
    spool = Spool(tmp_path)
    fetcher = UrlFetcher(spool, allow_private=True)
    for url in (f"{site}/a.PNG", f"{site}/moved?to=/a.PNG"):
        path, name = await fetcher.fetch(url, "image", 100, TRUSTED)
        assert (Path(path).read_bytes(), Path(path).suffix, name) == (b"content", ".png", "a.PNG")
        Path(path).unlink()


async def test_what_cannot_be_had(site: str, tmp_path: Path) -> None:
    """Errors, loops, other schemes, closed ports and too much: refused, nothing left."""
    spool = Spool(tmp_path)
    fetcher = UrlFetcher(spool, allow_private=True)
    loop = f"{site}/moved?to=/moved%3Fto%3D/missing"
    urls = (f"{site}/missing", loop, f"{site}/moved?to=file:///etc/passwd", "http://", "http://[")
    for url in (*urls, f"http://127.0.0.1:{free_port()}/", "http://nosuch.invalid/"):
        with pytest.raises(InvalidInput):
            await fetcher.fetch(url, "image", 100, TRUSTED)
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(f"{site}/endless", "image", 5000, TRUSTED)
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(f"{site}/a.PNG", "image", 3, TRUSTED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/missing", "answers 404"),
        ("/answer?status=206", "answers 206"),
        ("/answer?status=304", "answers 304"),
        (f"/hops/?n={MAX_REDIRECTS + 1}", "redirects too often"),
        ("/answer?status=302", "answers 302"),  # it does not say where to
        ("/moved?to=file:///etc/passwd", "cannot be fetched"),
    ],
)
async def test_why_it_cannot_be_had(path: str, why: str, site: str, tmp_path: Path) -> None:
    """For a person, and by the name of the input for a program."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    with pytest.raises(InvalidInput) as refusal:
        await fetcher.fetch(site + path, "image", 100, TRUSTED)
    await fetcher.close()
    assert refusal.value.message == f"Cannot use 'image': its URL {why}"
    problem = {"input": "image", "message": f"its URL {why}"}
    assert refusal.value.details == {"problems": [problem]}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_kind_of_redirect(status: int, site: str, tmp_path: Path) -> None:
    """As often as is allowed. A file whose URL has no name is called as its input."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    url = f"{site}/hops/?n={MAX_REDIRECTS if status == 302 else 1}&status={status}"
    path, name = await fetcher.fetch(url, "image", 100, TRUSTED)
    assert (Path(path).read_bytes(), name) == (b"content", "image")
    await fetcher.close()


async def test_one_that_does_not_arrive(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after a while, and what has come of it is deleted; so it is when the caller
    goes."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    task = asyncio.create_task(fetcher.fetch(f"{site}/silent", "image", 5000, TRUSTED))
    await until(lambda: list(tmp_path.iterdir()))
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(fetch, "TOTAL_TIMEOUT_S", 0.5)
    with pytest.raises(InvalidInput, match="'image': its URL did not arrive within 0 s"):
        await fetcher.fetch(f"{site}/silent", "image", 5000, TRUSTED)
    assert list(tmp_path.iterdir()) == []
    await fetcher.close()


async def test_how_many_bytes_are_too_many(site: str, tmp_path: Path) -> None:
    """The refusal names the limit."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    path, _ = await fetcher.fetch(f"{site}/a.PNG", "image", 7, TRUSTED)
    assert Path(path).read_bytes() == b"content"
    with pytest.raises(PayloadTooLarge) as refusal:
        await fetcher.fetch(f"{site}/a.PNG", "image", 6, TRUSTED)
    assert refusal.value.message == "Cannot use 'image': its URL has over 6 bytes"
    await fetcher.close()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("identity", "plain"),
        ("", "plain"),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("identity, gzip", "gzip"),
        ("gzip", "members"),
        ("gzip", "padded"),
        ("deflate", "zlib"),
        ("deflate", "bare"),
    ],
)
async def test_what_was_compressed_unasked(
    coding: str, body: str, site: str, tmp_path: Path
) -> None:
    """The model gets the content, as it was before it was compressed for the way."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    url = f"{site}/coded.txt?coding={coding}&body={body}"
    path, _ = await fetcher.fetch(url, "text", len(TEXT), TRUSTED)
    assert Path(path).read_bytes() == TEXT
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(url, "text", len(TEXT) - 1, TRUSTED)
    assert [str(p) for p in tmp_path.iterdir()] == [path]
    await fetcher.close()


@pytest.mark.parametrize(
    ("coding", "body", "why"),
    [
        ("br", "plain", "'br', which is not supported"),
        ("zstd", "plain", "'zstd', which is not supported"),
        ("compress", "plain", "'compress', which is not supported"),
        ("gzip, gzip", "gzip", "'gzip, gzip', which is not supported"),
        ("gzip", "plain", "damaged"),
        ("gzip", "damaged", "damaged"),
        ("deflate", "gzip", "damaged"),
        ("gzip", "cut", "ends too early"),
        ("deflate", "cut-zlib", "ends too early"),
    ],
)
async def test_what_cannot_be_decoded(
    coding: str, body: str, why: str, site: str, tmp_path: Path
) -> None:
    """Is refused with the reason, and never reaches a model."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    with pytest.raises(InvalidInput, match=f"^Cannot use 'text': its URL answers .*{why}"):
        await fetcher.fetch(
            f"{site}/coded.txt?coding={coding}&body={body}", "text", 1 << 20, TRUSTED
        )
    assert list(tmp_path.iterdir()) == []
    await fetcher.close()


@pytest.mark.parametrize("body", ["bomb", "bombs"])
async def test_a_bomb_is_refused_while_it_is_decoded(body: str, site: str, tmp_path: Path) -> None:
    """What comes out of it is counted, not what came in."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(f"{site}/coded.txt?coding=gzip&body={body}", "text", 1 << 20, TRUSTED)
    assert list(tmp_path.iterdir()) == []
    await fetcher.close()


async def test_a_body_of_nothing_but_heads(site: str, tmp_path: Path) -> None:
    """600 KB of empty gzip files: more than came in may not come in, whatever comes out."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    url = f"{site}/coded.txt?coding=gzip&body=nothing"
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(url, "text", 100, TRUSTED)
    path, _ = await fetcher.fetch(url, "text", 1 << 20, TRUSTED)
    assert Path(path).read_bytes() == b""
    await fetcher.close()


async def test_an_empty_body_needs_no_decoding(site: str, tmp_path: Path) -> None:
    """As some servers answer for an empty file."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=True)
    path, _ = await fetcher.fetch(f"{site}/coded.txt?coding=gzip&body=empty", "text", 100, TRUSTED)
    assert Path(path).read_bytes() == b""
    await fetcher.close()


SPELLINGS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://[::]:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://localhost.:{port}/",
    "http://user:pass@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127．0．0．1:{port}/",
    "http://127｡0｡0｡1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://¹²⁷.⁰.⁰.¹:{port}/",
    "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏:{port}/",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://[::１]:{port}/",
    "http://127.0.0.%31:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
]
ELSEWHERE = [
    "http://169.254.169.254/latest/meta-data",
    "http://１６９.254.169.254/",
    "http://10.0.0.1/",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_reaches_this_machine(spelling: str, site: str, tmp_path: Path) -> None:
    """Nor tells an open port from a closed one: what is answered is the same for both."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=False)
    answers = []
    for port in (site.rpartition(":")[2], free_port()):
        with pytest.raises(InvalidInput) as refusal:
            await fetcher.fetch(spelling.format(port=port) + "a.PNG", "image", 100, TRUSTED)
        answers.append((refusal.value.message, refusal.value.details))
    assert answers[0] == answers[1]
    await fetcher.close()


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_private_addresses_are_refused(url: str, tmp_path: Path) -> None:
    """Before anything is connected to: at once, and in one sentence for all."""
    fetcher = UrlFetcher(Spool(tmp_path), allow_private=False)
    with pytest.raises(InvalidInput, match="'image': its URL is not on the public internet"):
        await fetcher.fetch(url, "image", 100, TRUSTED)
    await fetcher.close()


async def test_a_name_with_a_private_address_is_refused(tmp_path: Path) -> None:
    """As the address itself is, in the same words: nobody learns what a name means here."""
    fetcher = UrlFetcher(
        Spool(tmp_path), allow_private=False, make_resolver=lambda: Names("127.0.0.1")
    )
    refused = []
    for host in ("127.0.0.1", "inside.example"):
        with pytest.raises(InvalidInput) as caught:
            await fetcher.fetch(f"http://{host}:{free_port()}/", "image", 100, TRUSTED)
        refused.append((caught.value.message, caught.value.details))
    assert refused[0] == refused[1]
    await fetcher.close()
