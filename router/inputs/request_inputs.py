"""Turns what a client sent into a prediction's inputs: checked values and spooled files.

A file input may come as an upload, a data: URI or an http(s) URL. In each case the model gets a
file that the router wrote. A path or a file:// URL from a client is never passed on.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from router.errors import PayloadTooLarge
from router.inputs.data_uris import LONG_BYTES, DataUri, LongString, Turns, open_data_uri
from router.inputs.form_text import invalid
from router.inputs.input_schema import Field, InputSchema
from router.inputs.json_text import MAX_TEXT_BYTES, load_json
from router.keys.key import Caller
from router.prediction import FileRef, Json
from router.secret_inputs import CheckedInputs
from router.storage.store import Files, OpenFile


class Fetcher(Protocol):
    """Gets inputs that were given as URLs."""

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """Fetch the URL into the spool for that caller. Return the file's path and a name for it.

        Raises InvalidInput when the URL cannot be fetched, and PayloadTooLarge when its content
        has more than `max_bytes`.
        """

    async def close(self) -> None:
        """Close every connection."""


MAX_FILES = 100
MAX_URL_CHARS = 8192
NO_FILE = "must be an upload, a data: URI or an http(s) URL"
# Types that recorders in browsers use and that Python's table lacks.
EXTRA_SUFFIXES = {"audio/webm": ".webm", "audio/mp4": ".m4a", "image/webp": ".webp"}


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of a form."""

    field: str
    text: str


Source = str | LongString | FileRef


class RequestInputs:
    """Turns requests into inputs. When this fails, no file of the request stays in the spool.

    Raises InvalidInput when an input does not fit the schema, PayloadTooLarge when the request or
    a file is too large, InsufficientStorage when the disk is full, and what the fetcher raises.
    """

    def __init__(self, files: Files, fetcher: Fetcher, max_file_bytes: int) -> None:
        self.turns = Turns()
        self._files = files
        self._fetcher = fetcher
        self._max_file_bytes = max_file_bytes

    async def from_form(
        self, input_schema: InputSchema, parts: Sequence[Text | FileRef], caller: Caller
    ) -> tuple[CheckedInputs, tuple[FileRef, ...]]:
        """Return the inputs of a multipart form. Takes over the uploads, even when it raises."""
        taken = [p for p in parts if isinstance(p, FileRef)]
        try:
            if sum(len(p.text) for p in parts if isinstance(p, Text)) > LONG_BYTES:
                values = await self.turns.take(lambda: _by_field(input_schema, parts))
            else:
                values = _by_field(input_schema, parts)
            return await self._complete(input_schema, values, caller)
        except BaseException:
            self._files.remove(taken)
            raise

    async def from_json(
        self, input_schema: InputSchema, values: Mapping[str, Json], caller: Caller
    ) -> tuple[CheckedInputs, tuple[FileRef, ...]]:
        """Return the inputs of a JSON request's `input`. Drops unknown inputs, as Cog does."""
        known = {k: v for k, v in values.items() if k in input_schema.fields}
        return await self._complete(input_schema, known, caller)

    async def _complete(
        self, input_schema: InputSchema, values: Mapping[str, Json], caller: Caller
    ) -> tuple[CheckedInputs, tuple[FileRef, ...]]:
        refs: list[FileRef] = []
        try:
            plain: dict[str, Json] = {}
            sources: list[tuple[Field, Source]] = []
            for name, value in values.items():
                if not (field := input_schema.fields[name]).is_file:
                    plain[name] = value
                elif value not in (None, "", []):
                    sources += [(field, s) for s in _sources(field, value)]
            if len(sources) > MAX_FILES:
                raise PayloadTooLarge(f"Cannot take the request: it has over {MAX_FILES} files")
            _at_most_one(sources)
            # The values are checked before anything is fetched: a wrong request fetches nothing.
            checked = input_schema.check(with_texts(plain), {f.name for f, _ in sources})
            for field, source in sources:
                refs.append(await self._materialise(field, source, caller))
        except BaseException:
            self._files.remove(refs)
            raise
        return checked, tuple(refs)

    async def _materialise(self, field: Field, source: Source, caller: Caller) -> FileRef:
        in_list = field.kind == "array"
        if isinstance(source, FileRef):
            return FileRef(field.name, source.path, source.name, in_list)
        if isinstance(source, LongString) or source[:5].lower() == "data:":
            return await self._decode(field, source)
        if not source.lower().startswith(("http://", "https://")):
            raise invalid(field.name, NO_FILE)
        if len(source) > MAX_URL_CHARS:
            raise invalid(field.name, f"is a URL of over {MAX_URL_CHARS} characters")
        try:
            urlsplit(source)
        except ValueError as error:
            raise invalid(field.name, "is not a URL") from error
        path, name = await self._fetcher.fetch(source, field.name, self._max_file_bytes, caller)
        return FileRef(field.name, path, name, in_list)

    async def _decode(self, field: Field, source: str | LongString) -> FileRef:
        """Decode a data: URI into the spool, piece by piece."""
        try:
            uri = open_data_uri(source)
        except ValueError as error:
            raise invalid(field.name, str(error)) from error
        kind = uri.media_type
        suffix = EXTRA_SUFFIXES.get(kind) or mimetypes.guess_extension(kind) or ""
        file = self._files.create(f"upload{suffix}")
        path = str(file.path)
        ref = FileRef(field.name, path, f"{field.name}{suffix}", field.kind == "array")
        try:
            await self._write(uri, file, field.name, is_long=len(source) > LONG_BYTES)
        except BaseException:
            self._files.remove([ref])
            raise
        finally:
            file.close()
        if isinstance(source, LongString):
            source.release()
        return ref

    async def _write(self, uri: DataUri, file: OpenFile, name: str, *, is_long: bool) -> None:
        content = uri.content()

        def step() -> bool:
            piece = next(content, None)
            if piece is None:
                return False
            if file.size_bytes + len(piece) > self._max_file_bytes:
                raise PayloadTooLarge(
                    f"Cannot use '{name}': it exceeds {self._max_file_bytes} bytes"
                )
            file.write(piece)
            return True

        try:
            while await self.turns.take(step) if is_long else step():
                pass
        except ValueError as error:
            raise invalid(name, str(error)) from error


def _by_field(input_schema: InputSchema, parts: Sequence[Text | FileRef]) -> dict[str, Json]:
    """Return the form's values by input name. A file input's value lists its parts in order."""
    given: dict[str, list[Text | FileRef]] = {}
    for part in parts:
        given.setdefault(part.field, []).append(part)
    values: dict[str, Json] = {}
    for name, group in given.items():
        if (field := input_schema.field(name)).is_file:
            values[name] = [s for part in group for s in _form_sources(field, part)]
        elif any(isinstance(part, FileRef) for part in group):
            raise invalid(name, "must be text, got a file")
        else:
            values[name] = input_schema.from_text(
                name, [p.text for p in group if isinstance(p, Text)]
            )
    return values


def _form_sources(field: Field, part: Text | FileRef) -> list[Json]:
    if isinstance(part, FileRef):
        return [part]
    if field.kind == "array" and part.text.lstrip().startswith("["):
        try:
            many: list[Json] = load_json(part.text)
        except ValueError as error:
            raise invalid(field.name, NO_FILE) from error
        return many
    return [part.text] if part.text.strip() else []


def _sources(field: Field, value: Json) -> list[Source]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, Source) for v in values):
        raise invalid(field.name, NO_FILE)
    return values


def _at_most_one(sources: Sequence[tuple[Field, Source]]) -> None:
    seen: set[str] = set()
    for name in (f.name for f, _ in sources if f.kind != "array"):
        if name in seen:
            raise invalid(name, "must be given once")
        seen.add(name)


def with_texts(values: dict[str, Json]) -> dict[str, Json]:
    """Return the values with each LongString as its text, for inputs that take no file.

    Raises PayloadTooLarge when these have more text than a body may have.
    """
    left_bytes = MAX_TEXT_BYTES

    def with_text(value: Json) -> Json:
        nonlocal left_bytes
        if isinstance(value, list):
            return [with_text(v) for v in value]
        if isinstance(value, dict):
            return {k: with_text(v) for k, v in value.items()}
        if not isinstance(value, LongString):
            return value
        left_bytes -= len(value)
        if left_bytes < 0:
            raise PayloadTooLarge(
                f"Cannot take the request: it has over {MAX_TEXT_BYTES} bytes of text"
            )
        return value.text()

    return {k: with_text(v) for k, v in values.items()}
