"""The requests that the router makes to one coglet server on loopback."""

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
from router.models.process_interface import NotStartedError
from router.models.worker_hook.sitecustomize import FILE_URL_PREFIX
from router.prediction import Job, Json, MetricUpdate, OutputChunk
from router.trace_context import TraceContext

EVENT_STREAM = "text/event-stream"
JSON_TYPE = "application/json"
JSON_HEADERS = {"content-type": JSON_TYPE}
STREAM_HEADERS = {**JSON_HEADERS, "accept": EVENT_STREAM}
# coglet frees its slot up to 10 ms after its answer: 530 of 3000 immediate requests got a 409.
BUSY_RETRY_S = 0.001
BUSY_LIMIT_S = 2.0
HEALTH_LIMIT_S = 15.0
CANCEL_LIMIT_S = 5.0


OnProgress = Callable[[OutputChunk | MetricUpdate], None]


class CogClient:
    """The client of one server. Call `close` when done."""

    def __init__(self, port: int) -> None:
        self._http = LoopbackClient(port)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def health(self) -> dict[str, Json]:
        """Return the answer of /health-check, or {} when there is none that can be read."""
        try:
            async with asyncio.timeout(HEALTH_LIMIT_S):
                _, body = await self._request("GET", "/health-check")
            health: dict[str, Json] = orjson.loads(body)
            return health
        except (OSError, orjson.JSONDecodeError):
            return {}

    async def predict(
        self,
        body: bytes,
        is_broken: Callable[[], bool],
        on_progress: OnProgress | None = None,
        trace: TraceContext | None = None,
    ) -> tuple[int, bytes]:
        """POST a prediction, again while the slot is not yet free. Return status and body.

        With `on_progress` the prediction is streamed. `on_progress` is called with each element
        of the output and each metric. The body is then the last event, in the shape of an answer
        without streaming. With `trace` it continues that span.
        Raises NotStartedError when the prediction has certainly not begun, ConnectionLostError
        when it may have begun, and BodyTooLargeError when the answer is too large.
        """
        give_up = 0.0
        while True:
            try:
                status, answer = await self._post(body, on_progress, trace)
            except NotListeningError as error:
                raise NotStartedError("the model's server does not listen") from error
            if status != 409:
                return status, answer
            now = time.monotonic()
            give_up = give_up or now + BUSY_LIMIT_S
            if is_broken() or now > give_up:
                raise NotStartedError("the model's server accepts no prediction")
            await asyncio.sleep(BUSY_RETRY_S)

    async def cancel(self, prediction_id: str) -> bool:
        """Ask for a cancel. The prediction's own answer shows whether it was canceled.

        False when the server does not know the prediction or does not answer.
        """
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CANCEL_LIMIT_S):
                answer = await self._http.request("POST", f"/predictions/{prediction_id}/cancel")
            return answer.status == 200
        return False

    async def _post(
        self, body: bytes, on_progress: OnProgress | None, trace: TraceContext | None
    ) -> tuple[int, bytes]:
        path = "/predictions"
        headers = JSON_HEADERS if on_progress is None else STREAM_HEADERS
        if trace is not None:
            headers = {**headers, **trace.headers}
        if on_progress is None:
            return await self._request("POST", path, headers=headers, body=body)
        events = _Events(on_progress)
        answer = await self._http.request(
            "POST", path, headers=headers, body=body, stream=(EVENT_STREAM, events.read)
        )
        if answer.content_type != EVENT_STREAM:
            return answer.status, answer.body
        if events.outcome is None:
            # An `error` event ends it too: we have read too slowly, and the rest is lost.
            raise ConnectionLostError("the stream ended before the prediction")
        return answer.status, without_long_log(events.outcome)

    async def _request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Return status and body. A JSON body comes without a log that is too long."""
        read = AnswerBody()
        answer = await self._http.request(
            method, path, headers=headers, body=body, stream=(JSON_TYPE, read.feed)
        )
        return answer.status, read.whole() if answer.content_type == JSON_TYPE else answer.body


class _Events:
    """Reads the events of a streamed prediction."""

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


# The last event has the whole output and the whole log again.
MAX_LINE_BYTES = 2 * MAX_BODY_BYTES


class EventReader:
    """Parses events from the pieces of a stream, wherever it is cut."""

    def __init__(self) -> None:
        self._name = "message"
        self._data: list[bytes] = []
        self._parts: list[bytes] = []  # of a line that has not ended
        self._parts_bytes = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield each event's name and data as soon as it is complete.

        A line may have up to MAX_LINE_BYTES, because a picture comes as one line of base64. Each
        byte is looked at once, so the time for a line is proportional to its length. Raises
        BodyTooLargeError when a line is longer.
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
    """Return the body of the request to coglet."""
    body: dict[str, Json] = {"id": job.id, "input": with_file_urls(job)}
    if job.context:
        body["context"] = job.context
    return orjson.dumps(body)


def with_file_urls(job: Job) -> dict[str, Json]:
    """Return the inputs for coglet, each file as a URL that the worker's hook knows."""
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
