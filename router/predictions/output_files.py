"""Output files: they are moved from a prediction's output to the spool.

Replicate's API shows them as URLs. The native API and Cog's show them as data: URIs, which is how
the model's server sends them (`output_reader` makes these again). A file is stored once: when it is
first shown as a URL, or when its prediction is written.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import parse_qs, urlsplit

import orjson

from router.errors import InsufficientStorage
from router.media_types import MEDIA_TYPE, suffix_of_type
from router.prediction import FileRef, Json, JsonPath, OutputFile, Prediction
from router.predictions.output_reader import OutputReader, with_values
from router.predictions.result_mover import ResultMover
from router.storage.store import Files

log = logging.getLogger(__name__)

# When an output has more files, the others stay in it as data: URIs.
MAX_FILES = 1000
# Files are decoded and written in pieces, so that no step holds Python's GIL for long. Four
# characters of base64 are three bytes.
PIECE_CHARS = 4 << 18
# Up to this size a file is written without a thread: that takes less time than to start one.
SMALL_CHARS = 1 << 16
UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
URL_PATH = re.compile(r"/v1/outputs/([A-Za-z0-9_-]{1,64})/([A-Za-z0-9_.~-]{1,200})")


@dataclass(slots=True)
class StoredOutputs:
    """The output files in the spool of one prediction that has not ended. `files`: for each place
    in the output its data: URI, and the file made of it. `closed`: the prediction's end has been
    stored, and no file is added any more."""

    files: dict[JsonPath, tuple[str, OutputFile]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False


class Outputs:
    """Stores output files in `files`. `secret` makes their URLs unguessable. `mover` moves them to
    the result store, if there is one."""

    def __init__(self, files: Files, secret: str, mover: ResultMover | None = None) -> None:
        self._files = files
        self._secret = secret.encode()
        self.mover = mover
        self.reader = OutputReader(files, mover.results if mover else None)
        self._working: set[asyncio.Task[tuple[OutputFile, ...]]] = set()

    # ---- into the spool --------------------------------------------------------------------

    async def store(
        self,
        stored: StoredOutputs,
        prediction_id: str,
        output: Json,
        *,
        at: JsonPath = (),
        last: bool = False,
    ) -> tuple[Json, tuple[OutputFile, ...]]:
        """Store the files of an output. Returns the output with null in place of each file, and the
        files.

        `at`: the place of `output` in the prediction's output. `last`: `output` is all of the
        prediction's output, and the prediction has ended; files of an earlier attempt are deleted.
        A file that the disk does not take stays in the output, and no part of it on the disk.
        """
        if not may_hold_files(output) and not stored.files:
            return output, ()
        # In a task of its own: if the caller is cancelled, each file written must still be
        # recorded.
        work = asyncio.create_task(self._store(stored, prediction_id, output, at, last=last))
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        files = await asyncio.shield(work)
        return with_values(output, [(f.place[len(at) :], None) for f in files]), files

    async def _store(
        self, stored: StoredOutputs, prediction_id: str, output: Json, at: JsonPath, *, last: bool
    ) -> tuple[OutputFile, ...]:
        found = [((*at, *place), uri) for place, uri in islice(data_uris(output), MAX_FILES)]
        async with stored.lock:
            new = [(place, uri) for place, uri in found if not _is_known(stored, place, uri)]
            if new and not stored.closed:
                if sum(len(uri) for _, uri in new) <= SMALL_CHARS:
                    made = self._write_all(prediction_id, new, stored)
                else:
                    made = await asyncio.to_thread(self._write_all, prediction_id, new, stored)
                self._put(stored, made)
            if last and not stored.closed:
                self._remove(stored, stored.files.keys() - {place for place, _ in found})
                # Closed even if the disk has refused a file: the row is written next, and a file
                # stored after that would be in no row. `Links` tries again from the row.
                stored.closed = True
            return tuple(
                stored.files[place][1] for place, uri in found if _is_known(stored, place, uri)
            )

    def note_written(self, p: Prediction) -> None:
        """The prediction's end is on disk: its files may go to the result store."""
        if self.mover is not None and p.output_files:
            self.mover.move(p.id)

    def remove(self, files: Collection[FileRef]) -> None:
        """Delete files of deleted predictions, on the disk and in the result store. There may be
        files of inputs among them."""
        self._files.remove(files)
        if self.mover is not None:
            self.mover.remove(files)

    def _put(self, stored: StoredOutputs, made: Iterable[tuple[str, OutputFile]]) -> None:
        made = list(made)
        self._remove(stored, stored.files.keys() & {file.place for _, file in made})
        for uri, file in made:
            stored.files[file.place] = uri, file

    def _remove(self, stored: StoredOutputs, places: Collection[JsonPath]) -> None:
        self._files.remove([stored.files.pop(place)[1].ref() for place in places])

    def _write_all(
        self, prediction_id: str, found: Iterable[tuple[JsonPath, str]], stored: StoredOutputs
    ) -> list[tuple[str, OutputFile]]:
        """Write files; returns those that could be written. It may run in a thread: it changes only
        the disk."""
        taken = {file.name for _, file in stored.files.values()}
        made = []
        try:
            for place, uri in found:
                if (file := self._write(prediction_id, place, uri, taken)) is not None:
                    taken.add(file.name)
                    made.append((uri, file))
        except (InsufficientStorage, OSError) as error:
            # Also OSError, for a folder that is gone or damaged: the result must not be lost then.
            log.error("Cannot store an output file, it stays in the output: %s", error)
        return made

    def _write(
        self, prediction_id: str, place: JsonPath, uri: str, taken: Collection[str]
    ) -> OutputFile | None:
        """Write one file. None when the text is no data: URI, or when encoding the file would not
        give the same text. Raises InsufficientStorage when the disk is full, and OSError."""
        head = DATA_URI.match(uri)
        if head is None:
            return None
        media_type = head["type"] or ""
        suffix = suffix_of_type(media_type)
        file = self._files.create(f"output{suffix}", prediction_id)
        name = _name(place, suffix, taken)
        stored = OutputFile(place, str(file.path), name, media_type, 0)
        try:
            for start in range(head.end(), len(uri), PIECE_CHARS):
                text = uri[start : start + PIECE_CHARS]
                piece = base64.b64decode(text, validate=True)
                if not _is_canonical(text, piece, is_last=start + PIECE_CHARS >= len(uri)):
                    raise binascii.Error
                file.write(piece)
        except ValueError:  # binascii.Error is one
            self._files.remove([stored.ref()])
            return None
        except BaseException:
            self._files.remove([stored.ref()])
            raise
        finally:
            file.close()
        return OutputFile(place, str(file.path), name, media_type, file.size_bytes)

    # ---- URLs ------------------------------------------------------------------------------

    def url_path(self, prediction_id: str, file: OutputFile) -> str:
        """Path and query of the file's URL. Anyone who knows it may read the file."""
        return (
            f"/v1/outputs/{prediction_id}/{file.name}?token={self.token(prediction_id, file.name)}"
        )

    def token(self, prediction_id: str, name: str) -> str:
        """The part that makes the URL unguessable: 128 bits, as 32 hex digits. It does not change
        with a restart."""
        message = f"output\0{prediction_id}\0{name}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]

    def named_by(self, url: str) -> tuple[str, str] | None:
        """The prediction's id and the file's name from a URL of this router, with any host; None
        for any other URL."""
        parts = urlsplit(url)
        found = URL_PATH.fullmatch(parts.path)
        if found is None:
            return None
        given = parse_qs(parts.query).get("token", [""])[0]
        is_ours = hmac.compare_digest(given.encode(), self.token(found[1], found[2]).encode())
        return (found[1], found[2]) if is_ours else None


def _is_canonical(text: str, piece: bytes, *, is_last: bool) -> bool:
    """Whether encoding the piece again gives the same text: no unused bits are set, and no padding
    comes before the last piece."""
    rest = len(piece) % 3
    if rest and not is_last:
        return False
    return base64.b64encode(piece[-(rest or 3) :]).decode() == text[-4:]


def _is_known(stored: StoredOutputs, place: JsonPath, uri: str) -> bool:
    known = stored.files.get(place)
    return known is not None and known[0] == uri


def _name(place: JsonPath, suffix: str, taken: Collection[str]) -> str:
    """The last part of the URL, which clients use as the file's name: `output-mask.png` for
    `{"mask": …}`. No name in `taken` is used again."""
    stem = "-".join(["output", *(UNSAFE.sub("_", str(step))[:32] for step in place[-3:])])
    name, number = f"{stem}{suffix}", 1
    while name in taken:
        number += 1
        name = f"{stem}~{number}{suffix}"
    return name


DATA_URI = re.compile(rf"data:(?P<type>{MEDIA_TYPE.pattern})?;base64,", re.ASCII)


def may_hold_files(output: Json) -> bool:
    """False when there is certainly no data: URI in the output. For most outputs no other check is
    needed. A walk in Python through a long list would block the event loop."""
    if isinstance(output, str):
        return output.startswith("data:")
    if not isinstance(output, list | dict):
        return False
    for value in output if isinstance(output, list) else output.values():
        if isinstance(value, str) and value.startswith("data:"):
            return True  # avoids a copy of perhaps a hundred pictures below
    try:
        return b'"data:' in orjson.dumps(output, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # nested deeper than orjson writes (254)
        return False


def data_uris(output: Json) -> Iterator[tuple[JsonPath, str]]:
    """Every string of the output that begins like a data: URI in base64, and its place, in
    order."""
    waiting: list[tuple[JsonPath, Json]] = [((), output)]
    while waiting:  # no recursion: a model's output may be nested to any depth
        place, value = waiting.pop()
        if isinstance(value, str):
            if DATA_URI.match(value):
                yield place, value
        elif isinstance(value, list):
            waiting += [((*place, i), v) for i, v in enumerate(value)][::-1]
        elif isinstance(value, dict):
            waiting += [((*place, k), v) for k, v in value.items()][::-1]
