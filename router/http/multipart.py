"""Reads multipart/form-data as a stream: file parts go to the spool, text parts to memory.

python-multipart finds the parts. This module handles them and sets every limit. Starlette's own
form reader would first write each upload to another file, which would then have to be copied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from router.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from router.http.json_body import media_type, read_body
from router.inputs.json_text import MAX_TEXT_BYTES, MAX_WIDE_CHARS, too_wide, wide_chars
from router.inputs.request_inputs import Text
from router.prediction import FileRef
from router.storage.store import Files, OpenFile

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 100
MAX_HEADER_BYTES = 16 << 10
# RFC 8187: charset'language'percent-encoded. RFC 7578 does not allow it in forms, but some
# clients send a name that is not ASCII only in this way.
EXTENDED_NAME = re.compile(r"; *filename\*= *(utf-8|iso-8859-1)'[^';]*'([^;\s]+)", re.IGNORECASE)
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(slots=True)
class Form:
    """A form's parts in their order.

    The uploads are in the spool. The code that takes the form must keep or delete them.
    """

    parts: list[Text | FileRef] = field(default_factory=list)

    @property
    def uploads(self) -> list[FileRef]:
        """The file parts."""
        return [p for p in self.parts if isinstance(p, FileRef)]

    @property
    def texts(self) -> dict[str, list[str]]:
        """The text parts by name."""
        texts: dict[str, list[str]] = {}
        for p in self.parts:
            if isinstance(p, Text):
                texts.setdefault(p.field, []).append(p.text)
        return texts


class FormReader:
    """Has the parser's callbacks and the state of the part that is being read."""

    def __init__(self, files: Files) -> None:
        self.form = Form()
        self.ended = False
        self._files = files
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._header_bytes = 0
        self._name = ""
        self._client_name: str | None = None  # a file's name; None for a text
        self._file: OpenFile | None = None
        self._text = bytearray()
        self._text_bytes = 0
        self._wide_chars = 0

    def callbacks(self) -> MultipartCallbacks:
        """Return the callbacks under the parser's names."""
        return {
            "on_part_begin": self.on_part_begin,
            "on_header_field": self.on_header_field,
            "on_header_value": self.on_header_value,
            "on_header_end": self.on_header_end,
            "on_headers_finished": self.on_headers_finished,
            "on_part_data": self.on_part_data,
            "on_part_end": self.on_part_end,
            "on_end": self.on_end,
        }

    def on_part_begin(self) -> None:
        """Called at a boundary. Raises MalformedRequest when there are over MAX_PARTS parts."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MalformedRequest(f"Cannot read the form: it has over {MAX_PARTS} parts")
        self._headers = {}
        self._header_bytes = 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Called with a piece of a header's name."""
        self._count_header(end - start)
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Called with a piece of a header's value."""
        self._count_header(end - start)
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        """Called when a header is complete."""
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def on_headers_finished(self) -> None:
        """Called when the headers of a part are complete.

        A part with a filename is a file, a part without one is a text. Raises MalformedRequest
        when the part has no name.
        """
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in options:
            raise MalformedRequest("Cannot read the form: a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        self._client_name = _client_name(disposition, options.get(b"filename"))
        self._text = bytearray()
        if self._client_name:
            self._open_file(self._client_name)

    def _open_file(self, client_name: str) -> None:
        self._file = self._files.create(client_name)
        mime = self._headers.get(b"content-type", b"").decode("latin-1")
        self.form.parts.append(
            FileRef(self._name, str(self._file.path), client_name, media_type=mime)
        )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Called with a piece of the part's content.

        Raises PayloadTooLarge when the form has over MAX_TEXT_BYTES bytes of text.
        """
        if self._file is None and self._client_name is not None:
            self._open_file(self._client_name)
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        self._text_bytes += end - start
        if self._text_bytes > MAX_TEXT_BYTES:
            raise PayloadTooLarge(
                f"Cannot read the form: it has over {MAX_TEXT_BYTES} bytes of text"
            )

    def on_part_end(self) -> None:
        """Called when the part is complete. Raises MalformedRequest when a text is not UTF-8."""
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        if self._client_name is not None:
            return  # no filename and no content: a browser's file field that was left empty
        if not self._text.isascii():
            self._wide_chars += wide_chars(self._text)
            if self._wide_chars > MAX_WIDE_CHARS:
                raise too_wide("the form")
        try:
            text = self._text.decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"Cannot read the form: '{self._name}' is not UTF-8") from error
        self._text = bytearray()
        self.form.parts.append(Text(self._name, text))

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.ended = True

    def discard(self) -> None:
        """Close and delete every upload so far."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._files.remove(self.form.uploads)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise MalformedRequest("Cannot read the form: a part's headers are too long")


def _client_name(disposition: bytes, plain: bytes | None) -> str | None:
    """Return the file name that the client gave: "" for an empty one, None for no file."""
    name = None if plain is None else plain.decode("utf-8", "replace")
    if b"filename*" not in disposition.lower():
        return name
    unquoted = QUOTED.sub('""', disposition.decode("latin-1"))
    if extended := EXTENDED_NAME.search(unquoted):
        return unquote_to_bytes(extended[2]).decode(extended[1], "replace")
    return name or "file"


async def read_form(request: Request, files: Files, max_bytes: int) -> Form:
    """Return the request's form. When this raises, no upload of it is left in the spool.

    Raises UnsupportedMediaType when the body is not multipart/form-data, MalformedRequest when it
    cannot be read, PayloadTooLarge when it is too large, and InsufficientStorage when the disk
    has no room for it.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaType("Cannot read the body: Content-Type must be multipart/form-data")
    if not boundary:
        raise MalformedRequest("Cannot read the form: its Content-Type has no boundary")
    reader = FormReader(files)
    try:
        parser = MultipartParser(boundary, callbacks=reader.callbacks())
        await read_body(request, max_bytes, parser.write)
        if not reader.ended:
            raise MalformedRequest("Cannot read the form: it ends early")
    except FormParserError as error:
        reader.discard()
        raise MalformedRequest("Cannot read the form: it is not multipart/form-data") from error
    except BaseException:
        reader.discard()
        raise
    return reader.form
