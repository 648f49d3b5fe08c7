"""The parameters of a request besides its inputs: deadline, priority, wait, webhook."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request

from router.errors import InvalidInput, MalformedRequest
from router.http.headers import header
from router.prediction import Callback, Json, WebhookEvent
from router.predictions.webhooks import Webhooks

ASYNC_PREFERENCE = "respond-async"
PRIORITY_HEADER = b"x-callme-priority"
# Replicate's format: `90`, `5s`, `1m`, `1h30m45s`.
DURATION = re.compile(
    r"(?=[0-9])(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6}(?:\.\d{1,6})?)s?)?", re.ASCII
)


def prefers_async(request: Request) -> bool:
    """Whether the Prefer header lists respond-async."""
    return ASYNC_PREFERENCE in _preferences(request)


def preferred_wait_s(request: Request, default_s: float) -> float | None:
    """Return how long to wait for the prediction's end, in seconds.

    That is N of `wait=N`, the default for a `wait` without a number that can be read, and None
    when the Prefer header does not list it.
    """
    preference = next((p for p in _preferences(request) if p.partition("=")[0] == "wait"), None)
    if preference is None:
        return None
    text = preference.partition("=")[2].strip('" ')
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else default_s


def priority(request: Request) -> int:
    """Return the X-Callme-Priority header's value: 0 (first), 1 (the default) or 2.

    Raises MalformedRequest when it is anything else.
    """
    given = header(request.scope, PRIORITY_HEADER)
    if given is None:
        return 1
    text = given.strip()
    if text not in ("0", "1", "2"):
        raise MalformedRequest("Cannot use 'X-Callme-Priority': it must be 0, 1 or 2")
    return int(text)


def deadline_at(request: Request, now: float) -> float | None:
    """Return when the prediction must end, in seconds since the epoch.

    None without a Cancel-After header. Raises MalformedRequest when the header is not a duration
    above 0.
    """
    text = header(request.scope, b"cancel-after")
    if text is None:
        return None
    found = DURATION.fullmatch(text.strip().lower())
    hours, minutes, seconds = (float(n or 0) for n in found.groups()) if found else (0.0, 0.0, 0.0)
    duration_s = hours * 3600 + minutes * 60 + seconds
    if duration_s <= 0:
        raise MalformedRequest("Cannot use 'Cancel-After': it must be like 90, 5s, 1m or 1h30m")
    return now + duration_s


def _preferences(request: Request) -> list[str]:
    prefer = header(request.scope, b"prefer")
    if prefer is None:
        return []
    return [p.partition(";")[0].strip().lower().replace(" ", "") for p in prefer.split(",")]


def wrong(field: str, message: str) -> InvalidInput:
    """Return the error for one field of the body."""
    problems = [{"body": field, "message": message}]
    return InvalidInput(f"Cannot use '{field}': {message}", details={"problems": problems})


def read_callback(body: Mapping[str, Json], webhooks: Webhooks) -> Callback | None:
    """Return the body's webhook and its events, or None without a URL or without events.

    Raises InvalidInput when the URL or the list of events cannot be used.
    """
    url = body.get("webhook")
    events = body.get("webhook_events_filter")
    if url is None and body.get("webhook_completed") is not None:  # old clients' field
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
    """Return the URL under which the client reached the server, without a slash at the end."""
    return str(request.base_url).rstrip("/")
