"""Replicate's list of predictions: pages, newest first, optionally limited to a time range."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response

from router.errors import MalformedRequest
from router.http.apis.replicate_views import replicate_view
from router.http.auth import caller_of
from router.http.context import context_of
from router.http.errors import json_response
from router.http.prediction_params import base_url
from router.storage.store import Cursor

PAGE_LIMIT = 100
PATH = "/v1/predictions"


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a list. Times are in seconds since the epoch; `given` goes into the links."""

    since: float
    before: float
    is_empty: bool  # the client asks for predictions made on a web page; there are none
    given: dict[str, str]


async def list_predictions(request: Request) -> Response:
    """Return a page of the caller's predictions, with links to the next and the previous page.

    Raises MalformedRequest when a filter or the cursor cannot be used.
    """
    context, caller = context_of(request), caller_of(request)
    filters = _filters(request)
    direction, at = _read_cursor(request.query_params.get("cursor"))
    if at is None and filters.before < math.inf:
        at = (filters.before, "")
    predictions = context.predictions
    page = (
        []
        if filters.is_empty
        else await predictions.page(caller, **{direction: at}, limit=PAGE_LIMIT)
    )
    links: dict[str, str | None] = {"previous": None, "next": None}
    for name, way, edge in (("previous", "after", page[:1]), ("next", "before", page[-1:])):
        for p in edge:
            cursor = (p.created_at, p.id)
            beyond = await predictions.page(caller, **{way: cursor}, limit=1)
            if any(filters.since <= other.created_at < filters.before for other in beyond):
                query = urlencode({**filters.given, "cursor": _cursor(way, cursor)})
                links[name] = f"{base_url(request)}{PATH}?{query}"
    kept = [p for p in page if filters.since <= p.created_at < filters.before]
    results = [await replicate_view(context, p, base_url(request)) for p in kept]
    return json_response({**links, "results": results})


def _filters(request: Request) -> Filters:
    query = request.query_params
    names = ("created_after", "created_before", "source")
    given = {name: query[name] for name in names if query.get(name)}
    source = given.get("source", "api")
    if source not in ("api", "web"):
        raise MalformedRequest("Cannot list: 'source' must be web")
    return Filters(
        since=_time(given, "created_after", -math.inf),
        before=_time(given, "created_before", math.inf),
        is_empty=source == "web",
        given=given,
    )


def _time(given: dict[str, str], name: str, default: float) -> float:
    if name not in given:
        return default
    try:
        at = datetime.fromisoformat(given[name])
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise MalformedRequest(f"Cannot list: '{name}' must be a date-time of ISO 8601") from None


def _cursor(way: str, cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([way, *cursor])).decode().rstrip("=")


def _read_cursor(text: str | None) -> tuple[str, Cursor | None]:
    if text is None:
        return "before", None
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        way, created_at, prediction_id = orjson.loads(packed)
        if way in ("before", "after"):
            return str(way), (float(created_at), str(prediction_id))
    except (binascii.Error, ValueError, TypeError):
        pass
    raise MalformedRequest("Cannot use 'cursor': it must come from a link of this list")
