"""`callme save`: writes the files in the JSON of a response, which curl pipes into it."""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import typer

from router.cli.common import err_console, fail, print_json


def add_commands(app: typer.Typer) -> None:
    """Add `save`."""
    app.command()(save)


def save(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the file.")
    ] = None,
) -> None:
    """Read a response from stdin, write the files in it, and print it with their paths."""
    text = sys.stdin.read()
    try:
        answer = json.loads(text)
    except ValueError:
        fail(f"Cannot save: stdin must be a response of the router, got: {text[:200] or 'nothing'}")
    try:
        shown, _ = take_files(answer, output)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"Cannot write the output: {error.strerror}")
    print_json(shown)
    if isinstance(answer, dict) and "error" in answer and set(answer) == {"error"}:
        raise typer.Exit(1)


DEFAULT_STEM = "output"
# The suffixes that are true of the usual types.
TRUE_SUFFIXES = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
    "audio/wav": (".wav",),
    "audio/x-wav": (".wav",),
    "audio/mpeg": (".mp3",),
    "video/mp4": (".mp4",),
}
# Types that mimetypes does not know, or gives an unusual suffix.
SUFFIXES = {"image/jpeg": ".jpg", "image/webp": ".webp", "audio/wav": ".wav", "audio/x-wav": ".wav"}


def decode_data_uri(uri: str) -> tuple[str, bytes]:
    """The media type and the content of a data: URI (RFC 2397). Raises ValueError when it is not
    one.

    >>> decode_data_uri("data:text/plain;base64,aGk=")
    ('text/plain', b'hi')
    """
    head, comma, payload = uri.partition(",")
    if not head.startswith("data:") or not comma:
        raise ValueError("Cannot decode: it must be a data: URI")
    kind, *parameters = head.removeprefix("data:").split(";")
    content = unquote_to_bytes(payload)
    if "base64" in parameters:
        try:
            content = base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise ValueError("Cannot decode: it must be base64") from error
    return kind or "text/plain", content


def take_files(output: Any, destination: Path | None) -> tuple[Any, list[Path]]:
    """Write every file in the output. Returns the output with paths in place of the files, and the
    paths.

    One file is written to `destination`, with the suffix of its type if it has none, or into it if
    it is a folder. Several are written next to it, with the names of their fields. Without a
    destination the name is `output`, the files of a list are `output.0.png` as in Cog, and no file
    is overwritten. Stderr says when the suffix of `destination` is not that of the file's type.
    Raises ValueError when a data: URI is not valid, and OSError.
    """
    found = list(_data_uris(output, ()))
    written: dict[str, Path] = {}
    for place, uri in found:
        if uri not in written:
            kind, content = decode_data_uri(uri)
            path = _path(place if len(found) > 1 else (), kind, destination)
            path.write_bytes(content)
            written[uri] = path
            warn_of_suffix(path, kind)
    return _replaced(output, written), list(written.values())


def warn_of_suffix(path: Path, kind: str) -> None:
    """Say so when the suffix that the person chose is not that of the file's type."""
    true, suffix = TRUE_SUFFIXES.get(kind, ()), path.suffix.lower()
    if not true or suffix in true or all(suffix not in s for s in TRUE_SUFFIXES.values()):
        return
    better = path.with_suffix(true[0])
    err_console.print(f"{path} is {kind}: {better.name} would be its name", soft_wrap=True)


def _path(place: tuple[str, ...], kind: str, destination: Path | None) -> Path:
    suffix = SUFFIXES.get(kind) or mimetypes.guess_extension(kind) or ".bin"
    name = "-".join(place)
    # As Cog names the files of a list: output.0.png.
    joint = "." if len(place) == 1 and name.isdigit() else "-"
    if destination is not None:
        if destination.is_dir():
            destination /= DEFAULT_STEM
        suffix = destination.suffix or suffix
        stem = destination.name.removesuffix(destination.suffix)
        return destination.with_name(f"{stem}{joint if name else ''}{name}{suffix}")
    stem = f"{DEFAULT_STEM}{joint}{name}" if name else DEFAULT_STEM
    path, i = Path(f"{stem}{suffix}"), 1
    while path.exists():
        path, i = Path(f"{stem}-{i}{suffix}"), i + 1
    return path


def _data_uris(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str) and value.startswith("data:"):
        yield place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _data_uris(item, (*place, str(name)))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _data_uris(item, (*place, str(i)))


def _replaced(value: Any, written: dict[str, Path]) -> Any:
    if isinstance(value, str):
        return str(written[value]) if value in written else value
    if isinstance(value, dict):
        return {name: _replaced(item, written) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, written) for item in value]
    return value
