"""Which webhooks a running prediction sends, besides those of its start and its end."""

from __future__ import annotations

from msgspec.structs import replace

from router.prediction import (
    LogText,
    MetricUpdate,
    Outcome,
    Prediction,
    Progress,
    Status,
    WebhookEvent,
)
from router.predictions.in_flight import InFlight
from router.predictions.webhooks import Webhooks

LOG_EVENTS = WebhookEvent.LOGS, WebhookEvent.PROGRESS


def notify_of_progress(webhooks: Webhooks, in_flight: InFlight, progress: Progress) -> None:
    """Send the webhook of a new output or of a new line of the log, if one is due."""
    if in_flight.prediction.callback is None or isinstance(progress, MetricUpdate):
        return
    for event in LOG_EVENTS if isinstance(progress, LogText) else (WebhookEvent.OUTPUT,):
        if webhooks.wants(in_flight.prediction, event):
            webhooks.notify(in_flight.brief(), event)


def notify_of_output(webhooks: Webhooks, p: Prediction, outcome: Outcome) -> None:
    """Send the webhook `output` (or `logs`) of a prediction that has succeeded: a model that does
    not stream has no output before its end."""
    if p.callback is None or outcome.status is not Status.SUCCEEDED:
        return
    metrics = {**p.metrics, **outcome.metrics}
    p = replace(p, output=outcome.output, logs=outcome.logs, metrics=metrics)
    for event, has_come in (
        (WebhookEvent.OUTPUT, p.output is not None),
        (WebhookEvent.LOGS, bool(p.logs)),
    ):
        if has_come and p.callback is not None and event in p.callback.events:
            webhooks.notify(p, event, last=True)
            return  # each of the two webhooks contains both
