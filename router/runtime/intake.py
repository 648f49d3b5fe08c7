"""From what a client sent to what a prediction is made of: checked values and spooled files.

A file input may come as an upload, a data: URI or an http(s) URL. Whatever it was, the model
gets a file that the router wrote; a path or file:// of the client's never goes further.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from router.domain.caller import Caller
from router.domain.errors import PayloadTooLarge
from router.domain.prediction import FileRef, Json
from router.ports import Fetcher, Files
from router.runtime.inputs import Field, InputSpec, invalid

DATA_URI = re.compile(r"(?i:data):(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*),", re.ASCII)
MAX_FILES = 100
LONG_URI_CHARS = 1 << 16
BASE64_URLSAFE = bytes.maketrans(b"-_", b"+/")
# Browsers' recorders use types that Python's table lacks.
EXTRA_SUFFIXES = {"audio/webm": ".webm", "audio/mp4": ".m4a", "image/webp": ".webp"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file part that a face has spooled already."""

    field: str
    path: str
    name: str
    content_type: str = ""


class Intake:
    """Turns requests into inputs. Whatever fails, no file of it stays in the spool."""

    def __init__(self, files: Files, fetcher: Fetcher, max_file_bytes: int) -> None:
        self._files = files
        self._fetcher = fetcher
        self._max_file_bytes = max_file_bytes

    async def from_form(
        self,
        spec: InputSpec,
        texts: Mapping[str, list[str]],
        uploads: Sequence[Upload],
        caller: Caller,
    ) -> tuple[dict[str, Json], tuple[FileRef, ...]]:
        """A multipart form's parts. Takes over the uploads, also when it raises."""
        taken = [_take_upload(u) for u in uploads]
        try:
            for f in taken:
                field = spec.field(f.field)
                if not field.is_file:
                    raise invalid(f.field, "must be text, got a file")
            refs = [
                FileRef(f.field, f.path, f.name, spec.fields[f.field].kind == "array")
                for f in taken
            ]
            values = {name: spec.from_text(name, t) for name, t in texts.items()}
        except BaseException:
            self._files.remove(taken)
            raise
        return await self._complete(spec, values, refs, caller)

    async def from_json(
        self, spec: InputSpec, values: Mapping[str, Json], caller: Caller
    ) -> tuple[dict[str, Json], tuple[FileRef, ...]]:
        """The `input` of a JSON request. Unknown inputs are dropped, as Cog does."""
        known = {k: v for k, v in values.items() if k in spec.fields}
        return await self._complete(spec, known, [], caller)

    async def _complete(
        self, spec: InputSpec, values: dict[str, Json], refs: list[FileRef], caller: Caller
    ) -> tuple[dict[str, Json], tuple[FileRef, ...]]:
        try:
            plain: dict[str, Json] = {}
            sources: list[tuple[Field, str]] = []
            for name, value in values.items():
                field = spec.fields.get(name)
                if field is None or not field.is_file:
                    plain[name] = value
                elif value not in (None, "", []):
                    sources += [(field, s) for s in _sources(field, value)]
            if len(refs) + len(sources) > MAX_FILES:
                raise PayloadTooLarge(f"Cannot take the request: it has over {MAX_FILES} files")
            _at_most_one(refs, sources)
            files = {r.field for r in refs} | {f.name for f, _ in sources}
            # Checked before anything is fetched: a request that is wrong costs nothing.
            checked = spec.check(plain, files)
            for field, source in sources:
                refs.append(await self._materialise(field, source, caller))
        except BaseException:
            self._files.remove(refs)
            raise
        return checked, tuple(refs)

    async def _materialise(self, field: Field, source: str, caller: Caller) -> FileRef:
        in_list = field.kind == "array"
        if source[:5].lower() == "data:":
            if len(source) < LONG_URI_CHARS:
                mime, body = self._decode(field.name, source)
            else:  # percent signs by the million would hold up every other request
                mime, body = await asyncio.to_thread(self._decode, field.name, source)
            suffix = EXTRA_SUFFIXES.get(mime) or mimetypes.guess_extension(mime) or ""
            file = self._files.create(f"upload{suffix}")
            ref = FileRef(field.name, str(file.path), f"{field.name}{suffix}", in_list)
            try:
                file.write(body)
            except BaseException:
                self._files.remove([ref])
                raise
            finally:
                file.close()
            return ref
        if not source.lower().startswith(("http://", "https://")):
            raise invalid(field.name, "must be an upload, a data: URI or an http(s) URL")
        try:
            urlsplit(source)
        except ValueError as error:
            raise invalid(field.name, "is not a URL") from error
        path, name = await self._fetcher.fetch(source, field.name, self._max_file_bytes, caller)
        return FileRef(field.name, path, name, in_list)

    def _decode(self, name: str, uri: str) -> tuple[str, bytes]:
        head = DATA_URI.match(uri)
        if head is None:
            raise invalid(name, "is not a data: URI: it has no comma")
        body = uri[head.end() :].encode("utf-8", "replace")
        if len(body) > self._max_file_bytes * 4 // 3 + 4:
            raise PayloadTooLarge(f"Cannot use '{name}': it exceeds {self._max_file_bytes} bytes")
        content = unquote_to_bytes(body)
        if head["parameters"].rstrip().lower().endswith(";base64"):
            packed = content.translate(BASE64_URLSAFE, b" \r\n\t").rstrip(b"=")
            try:
                content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
            except binascii.Error as error:
                raise invalid(name, "is not valid base64") from error
        if len(content) > self._max_file_bytes:
            raise PayloadTooLarge(f"Cannot use '{name}': it exceeds {self._max_file_bytes} bytes")
        return head["type"].lower(), content


def _take_upload(u: Upload) -> FileRef:
    return FileRef(u.field, u.path, u.name)


def _sources(field: Field, value: Json) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) for v in values):
        raise invalid(field.name, "must be an upload, a data: URI or an http(s) URL")
    return values


def _at_most_one(refs: Sequence[FileRef], sources: Sequence[tuple[Field, str]]) -> None:
    seen: set[str] = set()
    scalar = [r.field for r in refs if not r.in_list]
    scalar += [f.name for f, _ in sources if f.kind != "array"]
    for name in scalar:
        if name in seen:
            raise invalid(name, "must be given once")
        seen.add(name)
