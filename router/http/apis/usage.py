"""GET /usage: who has used which model how much."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.errors import MalformedRequest
from router.http.auth import caller_of
from router.http.context import context_of
from router.http.errors import json_response
from router.predictions.usage import DEFAULT_DAYS, KEPT_DAYS
from router.storage.usage_store import NUMBERS, UsageRow


async def usage(request: Request) -> Response:
    """Return a row for each day, key and model, and their total.

    A key sees its own; an admin key sees all. `?days=7`: today and the six days before. Raises
    MalformedRequest for another number than 1 to KEPT_DAYS.
    """
    context = context_of(request)
    since = context.usage.day(_days(request) - 1)
    rows = await context.usage.read(since, caller_of(request).only_owner)
    total = UsageRow("", "", "")
    for row in rows:
        total.add(row)
    price = context.replicate_price_per_s
    return json_response(
        {
            "since": since,
            "until": context.usage.day(0),
            "rows": [
                {"day": row.day, "key": row.owner, "model": row.model, **_numbers(row, price)}
                for row in rows
            ],
            "total": _numbers(total, price),
            "replicate_estimate": {"hardware": context.hardware, "usd_per_s": price},
        }
    )


def _numbers(row: UsageRow, price: float | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {name: getattr(row, name) for name in NUMBERS}
    numbers["run_s"] = round(row.run_s, 3)
    numbers["replicate_usd_estimate"] = None if price is None else round(row.run_s * price, 6)
    return numbers


def _days(request: Request) -> int:
    text = request.query_params.get("days", str(DEFAULT_DAYS))
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(KEPT_DAYS))
    if not (is_number and 1 <= int(text) <= KEPT_DAYS):
        raise MalformedRequest(f"Cannot use 'days': it must be 1 to {KEPT_DAYS}")
    return int(text)


def add_routes(app: Starlette) -> None:
    """Add /usage."""
    app.add_route("/usage", usage, methods=["GET"])
