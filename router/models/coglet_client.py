"""What is asked of one coglet server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import orjson

from router.models.coglet_responses import (
    MAX_BODY_BYTES,
    AnswerBody,
    BodyTooLargeError,
    without_long_log,
)
from router.models.loopback_http import ConnectionLostError, LoopbackClient, NotListeningError
from router.models.process import NotStartedError
from router.models.worker_hook.sitecustomize import FILE_URL_PREFIX
from router.prediction import Job, Json, MetricUpdate, OutputChunk

EVENT_STREAM = "text/event-stream"
JSON_TYPE = "application/json"
JSON_HEADERS = {"content-type": JSON_TYPE}
STREAM_HEADERS = {**JSON_HEADERS, "accept": EVENT_STREAM}
# coglet frees its slot up to 10 ms after the answer; 530 of 3000 immediate requests met a 409.
BUSY_RETRY_S = 0.001
BUSY_LIMIT_S = 2.0
HEALTH_LIMIT_S = 15.0
CANCEL_LIMIT_S = 5.0


OnProgress = Callable[[OutputChunk | MetricUpdate], None]


class CogClient:
    """One server's client. `close` when done."""

    def __init__(self, port: int) -> None:
        self._http = LoopbackClient(port)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def health(self) -> dict[str, Json]:
        """The answer of /health-check, {} when there is none that can be read."""
        try:
            async with asyncio.timeout(HEALTH_LIMIT_S):
                _, body = await self._request("GET", "/health-check")
            health: dict[str, Json] = orjson.loads(body)
            return health
        except (OSError, orjson.JSONDecodeError):
            return {}

    async def predict(
        self, body: bytes, is_broken: Callable[[], bool], on_progress: OnProgress | None = None
    ) -> tuple[int, bytes]:
        """POST a prediction, again while the slot is not yet free: status and body.

        With `on_progress` it is streamed: that is called with each element of the output and
        each metric, and the body is the event that says how it ended, in the shape of an
        unstreamed answer.
        Raises NotStartedError when it certainly never began, ConnectionLostError when it may
        have, BodyTooLargeError.
        """
        give_up = 0.0
        while True:
            try:
                status, answer = await self._post(body, on_progress)
            except NotListeningError as error:
                raise NotStartedError("the model's server does not listen") from error
            if status != 409:
                return status, answer
            now = time.monotonic()
            give_up = give_up or now + BUSY_LIMIT_S
            if is_broken() or now > give_up:
                raise NotStartedError("the model's server takes no prediction")
            await asyncio.sleep(BUSY_RETRY_S)

    async def cancel(self, prediction_id: str) -> bool:
        """Ask for a cancel; whether it is heeded shows in the prediction's own answer. False
        when the server does not know the prediction, or does not answer."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CANCEL_LIMIT_S):
                answer = await self._http.request("POST", f"/predictions/{prediction_id}/cancel")
            return answer.status == 200
        return False

    async def _post(self, body: bytes, on_progress: OnProgress | None) -> tuple[int, bytes]:
        path = "/predictions"
        if on_progress is None:
            return await self._request("POST", path, headers=JSON_HEADERS, body=body)
        events = _Events(on_progress)
        answer = await self._http.request(
            "POST", path, headers=STREAM_HEADERS, body=body, stream=(EVENT_STREAM, events.read)
        )
        if answer.content_type != EVENT_STREAM:
            return answer.status, answer.body
        if events.outcome is None:
            # By an `error` event too: we were too slow, and the rest cannot be had.
            raise ConnectionLostError("the stream ended before the prediction")
        return answer.status, without_long_log(events.outcome)

    async def _request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body, JSON without a log that is too long."""
        read = AnswerBody()
        answer = await self._http.request(
            method, path, headers=headers, body=body, stream=(JSON_TYPE, read.feed)
        )
        return answer.status, read.whole() if answer.content_type == JSON_TYPE else answer.body


class _Events:
    """What a streamed prediction tells."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.outcome: bytes | None = None
        self._on_progress = on_progress
        self._reader = EventReader()

    def read(self, piece: bytes) -> None:
        for name, data in self._reader.feed(piece):
            if name == "output":
                self._on_progress(OutputChunk(orjson.loads(data).get("chunk"), len(data)))
            elif name == "metric":
                event = orjson.loads(data)
                update = MetricUpdate(str(event["name"]), event["value"], str(event["mode"]))
                self._on_progress(update)
            elif name == "completed":
                self.outcome = data


# The last event has all of the output and all of the log once more.
MAX_LINE_BYTES = 2 * MAX_BODY_BYTES


class EventReader:
    """Fed with pieces of a stream, however they are cut."""

    def __init__(self) -> None:
        self._name = "message"
        self._data: list[bytes] = []
        self._parts: list[bytes] = []  # of a line that has not ended
        self._parts_bytes = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Each event's name and data, as soon as it is complete.

        A line may be long, up to MAX_LINE_BYTES: a picture comes as one line of base64. Bytes are
        looked at once, so a long line costs no more than its length. Raises BodyTooLargeError.
        """
        *lines, rest = piece.split(b"\n")
        for end in lines:
            line = b"".join([*self._parts, end]).removesuffix(b"\r")
            self._parts.clear()
            self._parts_bytes = 0
            if not line:
                if self._data:
                    yield self._name, b"\n".join(self._data)
                self._name, self._data = "message", []
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value.decode(errors="replace")
            elif field == b"data":
                self._data.append(value)
        if rest:
            self._parts.append(rest)
            self._parts_bytes += len(rest)
            if self._parts_bytes > MAX_LINE_BYTES:
                raise BodyTooLargeError("an event is too large")


def request_body(job: Job) -> bytes:
    """What coglet is asked for."""
    body: dict[str, Json] = {"id": job.id, "input": with_file_urls(job)}
    if job.context:
        body["context"] = job.context
    return orjson.dumps(body)


def with_file_urls(job: Job) -> dict[str, Json]:
    """The inputs as coglet gets them: each file as the URL that the worker's hook knows."""
    inputs = dict(job.inputs)
    lists: dict[str, list[str]] = {}
    for file in job.files:
        url = FILE_URL_PREFIX + quote(Path(file.path).name)
        if file.in_list:
            inputs[file.field] = lists.setdefault(file.field, [])
            lists[file.field].append(url)
        else:
            inputs[file.field] = url
    return inputs
