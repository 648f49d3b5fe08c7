"""Output files go from this machine to where the receiver of a webhook wants them.

A receiver that asks for the event `files` gets it before `completed`. It answers with a URL
for each, to which the file is sent with PUT. So files never pass through the receiver itself, and a
receiver that must not be asked for megabytes, such as an edge function, can have them in a storage
service.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec
import orjson

from router.prediction import FileRef, OutputFile, Prediction, WebhookEvent
from router.predictions.webhook_bodies import file_view

log = logging.getLogger(__name__)

NOT_SENT = 0
# The receiver makes a URL for each, and an edge function may take 2 s of processor.
ASKED_AT_ONCE = 25


class FileSender(Protocol):
    """Asks receivers, and sends files."""

    async def ask(self, url: str, message_id: str, body: bytes) -> tuple[int, bytes]:
        """POST the signed body. Returns the response's status, 0 when there is none, and its
        body, empty when that is too large."""

    async def put(self, url: str, path: Path, media_type: str) -> int:
        """PUT the file. Returns the response's status, 0 when there is none. Raises
        FileNotFoundError when there is no such file."""


# Gives a copy of an output file on the disk, for the time of a block. Raises FileNotFoundError when
# the file is not kept any more, and ResultStoreFailed.
LocalCopy = Callable[[OutputFile], AbstractAsyncContextManager[FileRef]]


class Upload(msgspec.Struct):
    """A receiver's answer. `uploads`: a URL for each file by its name. A file without one is not
    sent: the receiver has it already, or does not want it."""

    uploads: dict[str, str] = {}


def wants_files(p: Prediction) -> bool:
    """Whether the prediction's receiver asks where its output files go, and it has any."""
    asks = p.callback is not None and WebhookEvent.FILES in p.callback.events
    return asks and bool(p.output_files)


async def send_files(
    p: Prediction, sender: FileSender, local: LocalCopy
) -> tuple[int, tuple[OutputFile, ...]]:
    """Ask where the files go, ASKED_AT_ONCE at a time, and send them there. Returns a status (2xx
    when the receiver has all, else why not) and the files that it has; one that is no longer kept
    here is not among them. Raises ResultStoreFailed."""
    status, sent = NOT_SENT, tuple[OutputFile, ...]()
    for n, files in enumerate(_batches(p.output_files)):
        status, more = await _send_some(p, files, f"msg_{p.id}_files_{n}", sender, local)
        if not 200 <= status < 300:
            return status, ()
        sent += more
    return status, sent


def _batches(files: tuple[OutputFile, ...]) -> Iterator[tuple[OutputFile, ...]]:
    for start in range(0, len(files), ASKED_AT_ONCE):
        yield files[start : start + ASKED_AT_ONCE]


async def _send_some(
    p: Prediction,
    files: tuple[OutputFile, ...],
    message_id: str,
    sender: FileSender,
    local: LocalCopy,
) -> tuple[int, tuple[OutputFile, ...]]:
    if p.callback is None:
        return NOT_SENT, ()
    views = {"files": [file_view(file) for file in files], "total": len(p.output_files)}
    question = {"id": p.id, "event": WebhookEvent.FILES, **views}
    status, answer = await sender.ask(p.callback.url, message_id, orjson.dumps(question))
    if not 200 <= status < 300:
        return status, ()
    try:
        uploads: Mapping[str, str] = msgspec.json.decode(answer, type=Upload).uploads
    except msgspec.DecodeError:
        log.warning("a receiver's answer to `files` cannot be read", extra={"prediction": p.id})
        return NOT_SENT, ()
    sent = []
    for file in files:
        try:
            if url := uploads.get(file.name):
                async with local(file) as copy:
                    status = await sender.put(url, Path(copy.path), file.media_type)
        except FileNotFoundError:
            log.error("an output file is gone", extra={"prediction": p.id, "file": file.name})
            continue
        if not 200 <= status < 300:
            return NOT_SENT, ()
        sent.append(file)
    return status, tuple(sent)
