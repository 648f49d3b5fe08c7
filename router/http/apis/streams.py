"""One prediction's progress as Server-Sent Events, in Replicate's format and in Cog's.

A client's cursor is a number of output elements and a number of log lines. It is the id of each
event. So a client that reconnects continues where it was, even after the prediction's end, and the
server keeps nothing for it. Lines that were left out of a long log count too. A client whose cursor
is among them continues after them, and one line says how many lines it has missed.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import Unauthorized
from router.http.apis.replicate_views import FILE_STREAM_PATH, STREAM_PATH, stream_token, with_urls
from router.http.context import Context, context_of
from router.http.prediction_params import base_url
from router.http.sse import HEARTBEAT, HEARTBEAT_S, EventResponse, event_bytes
from router.keys.key import TRUSTED
from router.prediction import (
    Json,
    LogText,
    MetricUpdate,
    OutputChunk,
    Prediction,
    Status,
)
from router.predictions.in_flight import InFlight, chunks_of, metrics_of
from router.predictions.prediction_log import lines_since

# When the router stops, a client that reads has this long to receive the last events.
LAST_EVENTS_S = 3.0
CURSOR = re.compile(r"([0-9]{1,9})-([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StreamCursor:
    """How much a client has received. Metrics are not in the id: only Cog's API has them."""

    outputs: int = 0
    lines: int = 0
    metrics: int = 0

    def __str__(self) -> str:
        return f"{self.outputs}-{self.lines}"


CogView = Callable[[Prediction], dict[str, Any]]
Step = tuple[StreamCursor, OutputChunk | LogText | MetricUpdate | Prediction]


async def follow(
    in_flight: InFlight | None, p: Prediction, cursor: StreamCursor
) -> AsyncIterator[Step | None]:
    """Yield what comes after `cursor`, in order.

    That is the prediction when it has started, each line of the log, each element of the output
    and each metric, and the prediction when it has ended. None means that nothing has come for
    HEARTBEAT_S seconds. When this stops without an ended prediction, the router has stopped first.
    `in_flight` is None when `p` has already ended.
    """
    start_sent = False
    while True:
        version = 0
        if in_flight is not None:
            p, version = in_flight.prediction, in_flight.version
            chunks, lines = in_flight.progress_since(cursor.outputs, cursor.lines)
            metrics = in_flight.metrics_since(cursor.metrics)
        else:
            chunks, lines = chunks_of(p)[cursor.outputs :], lines_since(p.logs, cursor.lines)
            metrics = metrics_of(p)[cursor.metrics :]
        if p.started_at is not None and not start_sent:
            start_sent = True
            yield cursor, replace(p, status=Status.PROCESSING)
        for number, line in lines:
            cursor = StreamCursor(cursor.outputs, number, cursor.metrics)
            yield cursor, line
        for piece in _in_order(chunks, metrics, cursor.outputs):
            if isinstance(piece, OutputChunk):
                cursor = StreamCursor(cursor.outputs + 1, cursor.lines, cursor.metrics)
            else:
                cursor = StreamCursor(cursor.outputs, cursor.lines, cursor.metrics + 1)
            yield cursor, piece
        if p.status.is_terminal:
            yield cursor, p
            return
        # While those were sent, the prediction may have progressed or ended.
        if in_flight is not None and (
            in_flight.version != version or in_flight.prediction is not p
        ):
            continue
        if in_flight is None or in_flight.done.done():
            return
        if not await in_flight.changed_since(version, HEARTBEAT_S):
            yield None


def _in_order(
    chunks: list[Json], metrics: list[tuple[int, MetricUpdate]], outputs: int
) -> Iterator[OutputChunk | MetricUpdate]:
    """Yield the output elements, numbered from `outputs`, and each metric where it came."""
    due = deque(metrics)
    for number, chunk in enumerate(chunks, outputs):
        while due and due[0][0] <= number:
            yield due.popleft()[1]
        yield OutputChunk(chunk)
    for _, update in due:
        yield update


async def _over(context: Context, in_flight: InFlight | None) -> None:
    """Return when the router stops and a client that has not read everything is given up."""
    await context.shutdown.wait()
    if in_flight is not None:
        await asyncio.wait({in_flight.done})
    await asyncio.sleep(LAST_EVENTS_S)


# ---- Replicate's format ------------------------------------------------------------------


async def stream(request: Request) -> Response:
    """Send `output` and `logs`, then `done`, with `error` before it when the prediction failed.

    Raises Unauthorized when the URL's token is wrong.
    """
    context = context_of(request)
    prediction_id = request.path_params["id"]
    given = request.query_params.get("token", "").encode()
    if not hmac.compare_digest(given, stream_token(context, prediction_id).encode()):
        raise Unauthorized("Cannot follow: this is not a stream's URL")
    p = await context.predictions.get(prediction_id, TRUSTED)
    found = CURSOR.fullmatch(request.headers.get("last-event-id", ""))
    cursor = StreamCursor(*map(int, found.groups())) if found else StreamCursor()
    in_flight = context.predictions.in_flight(prediction_id)
    base = base_url(request)
    links = context.predictions.links

    async def link(index: int, value: Json) -> Json:
        if in_flight is None:
            return value
        rest, files, at = await links.chunk_and_files(in_flight, index, value)
        return with_urls(context, prediction_id, rest, files, base, at=at)

    if in_flight is None:
        p = await links.with_output_files(p)
        output = with_urls(context, p.id, p.output, p.output_files, base)
        p = replace(p, output=output, output_files=())
    events = _replicate_events(follow(in_flight, p, cursor), link)
    return EventResponse(events, lambda: _over(context, in_flight))


async def _replicate_events(
    steps: AsyncIterator[Step | None], link: Callable[[int, Json], Awaitable[Json]]
) -> AsyncIterator[bytes]:
    """Yield the steps as events. `link` replaces the files in an output element by URLs."""
    async for step in steps:
        if step is None:
            yield HEARTBEAT
            continue
        cursor, what = step
        match what:
            case OutputChunk(value):
                shown = await link(cursor.outputs - 1, value)
                yield event_bytes("output", _as_text(shown), str(cursor))
            case LogText(text):
                yield event_bytes("logs", text, str(cursor))
            case Prediction() if what.status.is_terminal:
                yield _end(what, cursor)


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _end(p: Prediction, cursor: StreamCursor) -> bytes:
    match p.status:
        case Status.SUCCEEDED:
            return event_bytes("done", "{}", str(cursor))
        case Status.FAILED:
            message = p.failure.message if p.failure else "no reason given"
            detail = orjson.dumps({"detail": message}).decode()
            error = event_bytes("error", detail, str(cursor))
            return error + event_bytes("done", '{"reason":"error"}', str(cursor))
        case _:
            return event_bytes("done", '{"reason":"canceled"}', str(cursor))


# ---- Cog's format ------------------------------------------------------------------------


def cog_stream(
    request: Request, in_flight: InFlight | None, p: Prediction, view: CogView, *, cancel: bool
) -> Response:
    """Send the events that coglet sends: `start`, `output`, `log`, `metric`, `completed`.

    `in_flight` is None when `p` has already ended. `cancel`: whether the prediction is canceled
    when the client leaves.
    """
    context = context_of(request)
    events = _cog_events(follow(in_flight, p, StreamCursor()), view)

    def on_leave() -> None:
        if cancel:
            context.predictions.cancel(p.id)

    return EventResponse(events, lambda: _over(context, in_flight), on_leave=on_leave)


async def _cog_events(steps: AsyncIterator[Step | None], view: CogView) -> AsyncIterator[bytes]:
    async for step in steps:
        if step is None:
            yield HEARTBEAT
            continue
        cursor, what = step
        match what:
            case OutputChunk(value):
                yield _cog_event("output", {"chunk": value, "index": cursor.outputs - 1})
            case LogText(text, source):
                yield _cog_event("log", {"source": source, "data": text})
            case MetricUpdate(name, value, mode):
                yield _cog_event("metric", {"name": name, "value": value, "mode": mode})
            case Prediction() if what.status.is_terminal:
                yield _cog_event("completed", view(what))
            case Prediction():
                yield _cog_event("start", {"id": what.id, "status": what.status})


def _cog_event(kind: str, data: dict[str, Any]) -> bytes:
    return event_bytes(kind, orjson.dumps(data).decode())


def add_routes(app: Starlette) -> None:
    """Add the routes on which Replicate's clients follow a prediction."""
    app.add_route(STREAM_PATH, stream, methods=["GET"])
    app.add_route(FILE_STREAM_PATH, stream, methods=["GET"])
