"""The `webhook` fields of a JSON request, which Cog's face and Replicate's share."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from router.domain.errors import InvalidInput
from router.domain.prediction import Callback, Json, WebhookEvent
from router.runtime.webhooks import Webhooks


def wrong(field: str, message: str) -> InvalidInput:
    """The error for one field of the body, beside `input`."""
    problems = [{"body": field, "message": message}]
    return InvalidInput(f"Cannot use '{field}': {message}", details={"problems": problems})


def read_callback(body: Mapping[str, Json], webhooks: Webhooks) -> Callback | None:
    """Whom the body wants told, and of what; None when of nothing. Raises InvalidInput."""
    url = body.get("webhook")
    events = body.get("webhook_events_filter")
    if url is None and body.get("webhook_completed") is not None:  # as old clients say it
        url, events = body["webhook_completed"], [WebhookEvent.COMPLETED]
    if url is None:
        return None
    if not isinstance(url, str):
        raise wrong("webhook", "must be an http(s) URL")
    webhooks.check(url)
    if events is None:
        return Callback(url)
    known = ", ".join(WebhookEvent)
    if not isinstance(events, list) or not set(map(str, events)) <= set(WebhookEvent):
        raise wrong("webhook_events_filter", f"must be a list of: {known}")
    return Callback(url, tuple(e for e in WebhookEvent if e in events)) if events else None


def base_url(request: Request) -> str:
    """Where the client reached us, without a slash at the end."""
    return str(request.base_url).rstrip("/")
