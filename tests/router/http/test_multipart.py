"""Forms read in any cut, bounded, and with nothing left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from router.errors import (
    MalformedRequest,
    PayloadTooLarge,
    RouterError,
    UnsupportedMediaType,
)
from router.http.multipart import MAX_PARTS, Form, read_form
from router.inputs.json_text import MAX_TEXT_BYTES, MAX_WIDE_CHARS
from router.inputs.request_inputs import Text
from router.prediction import FileRef
from router.storage.spool import Spool

BOUNDARY = b"a-boundary"


def part(name: str, body: bytes, filename: str | None = None) -> bytes:
    """One part of a form."""
    head = f'--{BOUNDARY.decode()}\r\nContent-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"\r\nContent-Type: application/octet-stream'
    return head.encode() + b"\r\n\r\n" + body + b"\r\n"


def form_of(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


async def read(
    spool: Spool,
    chunks: Sequence[bytes],
    max_bytes: int = 1 << 24,
    *,
    leaves: bool = False,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Form:
    """Read a form that arrives in these chunks."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": c, "more_body": True} for c in chunks
    ]
    messages.append(
        {"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b""}
    )

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    content_type = b"multipart/form-data; boundary=" + BOUNDARY
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(b"content-type", content_type), *headers],
    }
    return await read_form(Request(scope, receive), spool, max_bytes)


@given(body=st.binary(max_size=400), text=st.text(max_size=50), cut=st.integers(1, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_cut_gives_the_same_form(
    tmp_path: Path, body: bytes, text: str, cut: int
) -> None:
    """However the bytes are cut into chunks, the file and the text arrive unchanged."""
    spool = Spool(tmp_path / "spool")
    whole = form_of(part("text", text.encode("utf-8", "surrogatepass")), part("f", body, "a.BIN"))
    if BOUNDARY in body or BOUNDARY in text.encode("utf-8", "surrogatepass"):
        return
    form = await read(spool, [whole[i : i + cut] for i in range(0, len(whole), cut)])
    assert form.texts == {"text": [text]}
    (upload,) = form.uploads
    assert (upload.field, upload.name) == ("f", "a.BIN")
    path = Path(upload.path)
    assert path.read_bytes() == body
    assert path.suffix == ".bin"
    assert path.parent == spool.folder
    path.unlink()


@given(data=st.binary(max_size=600), cut=st.integers(1, 100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_garbage_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes, cut: int) -> None:
    """Any bytes are a form or a RouterError; refused, no file stays."""
    spool = Spool(tmp_path / "spool")
    body = part("f", b"x", "f") + data
    try:
        form = await read(spool, [body[i : i + cut] for i in range(0, len(body), cut)])
    except RouterError:
        assert list(spool.folder.iterdir()) == []
    else:
        for upload in form.uploads:
            Path(upload.path).unlink()


async def test_what_is_too_much(tmp_path: Path) -> None:
    """Too many bytes, parts, or bytes of text; and a client that leaves. Nothing stays."""
    spool = Spool(tmp_path / "spool")
    upload = part("f", b"x" * 1000, "f")
    with pytest.raises(PayloadTooLarge):
        await read(spool, [form_of(upload)], max_bytes=500)
    with pytest.raises(MalformedRequest):
        await read(spool, [form_of(upload, *[part("t", b"")] * MAX_PARTS)])
    with pytest.raises(PayloadTooLarge):
        await read(spool, [form_of(upload, part("t", b"x" * (MAX_TEXT_BYTES + 1)))])
    half = part("t", b"x" * (MAX_TEXT_BYTES // 2))
    with pytest.raises(PayloadTooLarge):  # all texts together
        await read(spool, [form_of(upload, half, half, part("t", b"x"))])
    wide = part("t", "😀".encode() + b"x" * (MAX_WIDE_CHARS // 2))
    with pytest.raises(PayloadTooLarge, match="emoji"):
        await read(spool, [form_of(upload, wide, wide)])
    with pytest.raises(MalformedRequest):
        await read(spool, [upload], leaves=True)
    with pytest.raises(MalformedRequest):
        await read(spool, [form_of(upload, part("t", b"\xff"))])
    assert list(spool.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b.png", "x" * 300, ".."])
async def test_a_clients_name_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    """The file lies in the spool under a name of the router's own."""
    spool = Spool(tmp_path / "spool")
    form = await read(spool, [form_of(part("f", b"x", name))])
    path = Path(form.uploads[0].path)
    assert path.parent == spool.folder
    assert path.stem != Path(name).stem


async def test_an_untouched_file_field_is_not_given(tmp_path: Path) -> None:
    """A browser sends it with an empty filename and no content; nothing of it is kept."""
    spool = Spool(tmp_path / "spool")
    form = await read(spool, [form_of(part("f", b"", ""), part("text", b"hi"))])
    assert form.parts == [Text("text", "hi")]
    assert list(spool.folder.iterdir()) == []


@pytest.mark.parametrize(("name", "content"), [("", b"x"), ("empty.txt", b"")])
async def test_a_file_has_a_name_or_content(tmp_path: Path, name: str, content: bytes) -> None:
    """One of them is enough to be a file."""
    spool = Spool(tmp_path / "spool")
    (upload,) = (await read(spool, [form_of(part("f", content, name))])).uploads
    assert (upload.field, upload.name) == ("f", name)
    assert Path(upload.path).read_bytes() == content


async def test_texts_and_files_keep_their_order(tmp_path: Path) -> None:
    """As they came."""
    parts = [part("f", b"1"), part("f", b"2", "two"), part("g", b"3"), part("f", b"4")]
    form = await read(Spool(tmp_path / "spool"), [form_of(*parts)])
    assert [type(p) for p in form.parts] == [Text, FileRef, Text, Text]
    assert form.texts == {"f": ["1", "4"], "g": ["3"]}


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename*=UTF-8''na%C3%AFve%20plan.PNG", "naïve plan.PNG"),
        ("filename*=iso-8859-1'en'caf%E9.png", "café.png"),
        ("filename=\"naive.png\"; filename*=utf-8''na%C3%AFve.png", "naïve.png"),
        ("filename=\"a; filename*=utf-8''b.png\"", "a; filename*=utf-8''b.png"),
        ("filename*=klingon''x.png", "file"),
        ("filename*=UTF-8''%FF.png", "\ufffd.png"),
    ],
)
async def test_an_extended_filename(tmp_path: Path, parameters: str, name: str) -> None:
    """`filename*=` alone makes a part a file too (RFC 8187)."""
    body = part("f", b"x").replace(b'name="f"', f'name="f"; {parameters}'.encode())
    (upload,) = (await read(Spool(tmp_path / "spool"), [form_of(body)])).uploads
    assert upload.name == name


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip"])
async def test_a_compressed_form_is_refused(tmp_path: Path, encoding: bytes) -> None:
    """By its header; one that is not compressed may say so."""
    spool = Spool(tmp_path / "spool")
    whole = form_of(part("t", b"x"))
    with pytest.raises(UnsupportedMediaType):
        await read(spool, [whole], headers=[(b"content-encoding", encoding)])
    form = await read(spool, [whole], headers=[(b"content-encoding", b"Identity")])
    assert form.texts == {"t": ["x"]}
