"""The operator's paths: /health, /ready, /status, /metrics."""

from __future__ import annotations

import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.http.auth import admin_only
from router.http.context import Context, context_of
from router.http.errors import json_response
from router.scheduling.model import Model
from router.scheduling.refusals import eta_s
from router.scheduling.residency import held_bytes

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


async def health(request: Request) -> Response:
    """200 while the process serves requests. Says nothing else: it needs no key."""
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    """200 when predictions are accepted and the state folder is well, else 503 with `problems`."""
    context = context_of(request)
    accepting = context.is_open and not context.loop.scheduler.draining and bool(context.packages)
    models = {m.name: m.state for m in context.loop.scheduler.models.values()}
    problems = await context.problems()
    accepting = accepting and not problems
    body: dict[str, Any] = {"ready": accepting, "models": models}
    if problems:
        body["problems"] = list(problems)
    return json_response(body, 200 if accepting else 503)


@admin_only
async def status(request: Request) -> Response:
    """Every model's state, queue, memory and what it has cost so far."""
    context = context_of(request)
    scheduler = context.loop.scheduler
    return json_response(
        {
            "uptime_s": round(time.time() - context.started_at, 1),
            "draining": scheduler.draining,
            "memory": {
                "budget_bytes": scheduler.budget_bytes,
                "held_bytes": held_bytes(scheduler.models.values()),
            },
            "models": {m.name: _model_view(context, m) for m in scheduler.models.values()},
        }
    )


@admin_only
async def metrics(request: Request) -> Response:
    """What Prometheus scrapes."""
    return Response(context_of(request).metrics(), media_type=METRICS_TYPE)


def _model_view(context: Context, m: Model) -> dict[str, Any]:
    now, policy = time.monotonic(), context.loop.scheduler.policy
    served, last_served = context.predictions.homes.record(m.name)
    view: dict[str, Any] = {
        "state": m.state,
        "backend": context.backend_of(m.name),
        "state_for_s": round(now - m.phase_since, 1) if m.phase_since else None,
        "running": sorted(m.running),
        "queue": [
            {
                "id": w.id,
                "position": i,
                "waited_s": round(now - w.since, 1),
                "eta_s": round(eta_s(m, i, policy, now), 1),
            }
            for i, w in enumerate(m.waiting.order(now), 1)
        ],
        "served": served,
        "last_served": last_served,
        "concurrency": m.concurrency,
        "memory_bytes": m.footprint_bytes,
        "load_s": _rounded(m.load_s),
        "service_s": _rounded(m.service_s),
        "loads": m.loads,
        "evictions": m.evictions,
        "crashes": m.crashes,
    }
    if m.problem:
        view["problem"] = m.problem
    if m.failure_reason:
        view["last_failure"] = m.failure_reason
        view["retry_in_s"] = round(max(m.retry_at - now, 0.0), 1)
    if tail := context.loop.log_tail(m.name):
        view["log_tail"] = list(tail)
    return view


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


@admin_only
async def model_logs(request: Request) -> Response:
    """`{"model", "lines"}`, oldest first; those of its last process when it has ended."""
    context = context_of(request)
    package = context.package(request.path_params["model"])
    return json_response(
        {"model": package.name, "lines": list(context.loop.log_tail(package.name))}
    )


def add_routes(app: Starlette) -> None:
    """The operator's routes."""
    app.add_route("/health", health, methods=["GET"])
    app.add_route("/ready", ready, methods=["GET"])
    app.add_route("/status", status, methods=["GET"])
    app.add_route("/metrics", metrics, methods=["GET"])
    app.add_route("/models/{model}/logs", model_logs, methods=["GET"])
