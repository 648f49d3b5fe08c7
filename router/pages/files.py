"""The page's files: read once, packed once, each with the headers that it is sent with."""

from __future__ import annotations

import functools
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).with_name("static")
SHELL = "index.html"
# Where the shell names the folder above `static/`, seen from the page's own path.
ROOT_MARK = b"{{root}}"
# Where the shell lists the modules to fetch early.
MODULES_MARK = b"<!-- modules -->"
# Only files of the box; no inline code, no text that becomes markup. `data:` are pictures that a
# model returns in its output or its logs.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it is sent. `etag` changes with the content; `packed` is the gzipped body."""

    media_type: str
    body: bytes
    packed: bytes
    etag: str


@functools.cache
def static_file(name: str) -> StaticFile | None:
    """Return the file of that path below `static/`, or None when the page has no such file."""
    return _made(name, _content()[name]) if name in _content() and name != SHELL else None


@functools.cache
def shell(depth: int) -> StaticFile:
    """Return the page itself, for a path with `depth` folders in it: 1 for `/models/x`."""
    root = b"/".join([b".."] * depth) or b"."
    modules = sorted(n for n in _content() if n.endswith(".js") and "worklet" not in n)
    links = b"\n".join(
        b'<link rel="modulepreload" href="%s/static/%s">' % (root, name.encode())
        for name in modules
    )
    body = _content()[SHELL].replace(MODULES_MARK, links).replace(ROOT_MARK, root)
    return _made(SHELL, body)


@functools.cache
def _content() -> dict[str, bytes]:
    """Return every file by its path below `static/`: a request can name no other."""
    return {
        path.relative_to(STATIC).as_posix(): path.read_bytes()
        for path in sorted(STATIC.rglob("*"))
        if path.is_file()
    }


def _made(name: str, body: bytes) -> StaticFile:
    suffix = Path(name).suffix
    media_type = MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "text/plain"
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return StaticFile(media_type, body, gzip.compress(body, 9, mtime=0), etag)
