"""The operator's paths: /health, /ready, /status, /metrics, and under /models/{model}: logs, load,
unload, restart, promote, rollback."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.http.auth import admin_only
from router.http.context import Context, context_of
from router.http.errors import json_response
from router.models.tracebacks import with_location
from router.scheduling.snapshot import ModelSnapshot

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


async def health(request: Request) -> Response:
    """Answer 200 while the process serves requests. It shows nothing else: it needs no key."""
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    """Answer 200 when predictions are accepted, else 503.

    `problems` lists what is wrong with the state folder; with any problem the answer is 503.
    """
    context = context_of(request)
    snapshot = context.loop.snapshot()
    accepting = not context.shutdown.begun and not snapshot.shutting_down and bool(context.packages)
    models = {m.name: m.state for m in snapshot.models.values()}
    problems = await context.problems()
    accepting = accepting and not problems
    body: dict[str, Any] = {"ready": accepting, "models": models}
    if problems:
        body["problems"] = list(problems)
    return json_response(body, 200 if accepting else 503)


@admin_only
async def status(request: Request) -> Response:
    """Return every model's state, queue, memory, times and counters."""
    context = context_of(request)
    mover = context.predictions.outputs.mover
    snapshot = context.loop.snapshot()
    return json_response(
        {
            "uptime_s": round(time.time() - context.started_at, 1),
            "draining": snapshot.shutting_down,
            "memory": {
                "budget_bytes": snapshot.budget_bytes,
                "held_bytes": snapshot.held_bytes,
                "copies_budget_bytes": snapshot.host_budget_bytes,
                "copies_bytes": snapshot.host_held_bytes,
            },
            "models": {m.name: _model_view(context, m) for m in snapshot.models.values()},
            "left_out": dict(context.left_out),
            **({"result_store": mover.view()} if mover else {}),
        }
    )


@admin_only
async def metrics(request: Request) -> Response:
    """Return the metrics for Prometheus."""
    return Response(context_of(request).metrics(), media_type=METRICS_TYPE)


def _model_view(context: Context, m: ModelSnapshot) -> dict[str, Any]:
    served, last_served = context.predictions.overflow.record(m.name)
    view: dict[str, Any] = {
        "state": m.state,
        "backend": context.backend_of(m.name),
        "state_for_s": _rounded(m.phase_for_s, 1),
        "wanted": m.wanted,
        "restarting": m.restarting,
        "kept_loaded": m.stays_loaded,
        "running": list(m.running),
        "queue": [
            {
                "id": q.id,
                "position": q.position,
                "waited_s": round(q.waited_s, 1),
                "eta_s": round(q.eta_s, 1),
            }
            for q in m.queue
        ],
        "served": served,
        "last_served": last_served,
        "served_last_minute": context.predictions.overflow.per_minute(m.name),
        "concurrency": m.concurrency,
        "memory_bytes": m.footprint_bytes,
        "held_bytes": m.memory_bytes,
        "load_s": _rounded(m.load_s),
        "service_s": _rounded(m.service_s),
        "loads": m.loads,
        "evictions": m.evictions,
        "crashes": m.crashes,
    }
    if unread := context.schemas.unreadable(m.name):
        view["unreadable"] = with_location(unread.reason, unread.location)
    if context.versions is not None and (canary := context.versions.view(m.name)):
        view["canary"] = canary
    if sleep := _sleep_view(context, m):
        view["sleep"] = sleep
    if m.problem:
        view["problem"] = m.problem
    if m.failure_reason:
        view["last_failure"] = with_location(m.failure_reason, m.failure_location)
        view["retry_in_s"] = round(m.retry_in_s, 1)
    if tail := _log(context, m.name):
        view["log_tail"] = list(tail)
    return view


def _sleep_view(context: Context, m: ModelSnapshot) -> dict[str, Any]:
    """What is known of the model's sleep; {} for one that never could. `of_best`: the rate of a
    wake, compared with the best that was seen on this machine."""
    steps = context.loop.sleep_steps
    moves = steps.last.get(m.name, {})
    if not (m.can_sleep or m.sleep_refusal or moves):
        return {}
    view: dict[str, Any] = {
        "can_sleep": m.can_sleep,
        "copied": m.staged,
        "copies_bytes": m.host_bytes,
        "frees_bytes": m.freed_bytes,
        "holds_asleep_bytes": m.residue_bytes,
        "sleep_s": _rounded(m.sleep_s),
        "wake_s": _rounded(m.wake_s),
        "suspended": m.suspended,
        "suspend_s": _rounded(m.suspend_s),
        "resume_s": _rounded(m.resume_s),
    }
    for move, last in moves.items():
        rate = last.size / max(last.seconds, 1e-6)
        view[move] = {
            "bytes": last.size,
            "seconds": round(last.seconds, 4),
            "gb_per_s": round(rate / 1e9, 2),
        }
        if move == "wake" and steps.best_bytes_per_s:
            view[move]["of_best"] = round(rate / steps.best_bytes_per_s, 2)
    if m.sleep_refusal:
        view["refusal"] = m.sleep_refusal
    if m.suspend_refusal:
        view["suspend_refusal"] = m.suspend_refusal
    return view


def _rounded(seconds: float | None, digits: int = 3) -> float | None:
    return None if seconds is None else round(seconds, digits)


@admin_only
async def model_logs(request: Request) -> Response:
    """Return `{"model", "lines"}`, the oldest line first.

    When the model's process has ended, these are the last lines of that process. With
    `?prediction=ID` only the lines that this prediction printed.
    """
    context = context_of(request)
    name = context.package(request.path_params["model"]).name
    if prediction_id := request.query_params.get("prediction", ""):
        lines = context.loop.log_tail(name, prediction_id)
    else:
        lines = _log(context, name)
    return json_response({"model": name, "lines": list(lines)})


@admin_only
async def restart(request: Request) -> Response:
    """Start the model again with its present code. Answer 503 when that cannot be read."""
    context, name = _operated(request)
    await context.model_commands.restart(name)
    return _state(context, name)


@admin_only
async def load(request: Request) -> Response:
    """Load the model if there is room."""
    context, name = _operated(request)
    await context.model_commands.load(name)
    return _state(context, name)


@admin_only
async def unload(request: Request) -> Response:
    """Free the model's memory when it runs nothing."""
    context, name = _operated(request)
    context.model_commands.unload(name)
    return _state(context, name)


@admin_only
async def promote(request: Request) -> Response:
    """Send all requests for the model to its canary."""
    context, name = _operated(request)
    if context.versions is not None:
        await context.versions.promote(name)
    return _canary(context, name)


@admin_only
async def rollback(request: Request) -> Response:
    """Send no request for the model to its canary."""
    context, name = _operated(request)
    if context.versions is not None:
        await context.versions.rollback(name)
    return _canary(context, name)


def _canary(context: Context, model: str) -> Response:
    view = context.versions.view(model) if context.versions else None
    return json_response({"model": model, "canary": view})


def _operated(request: Request) -> tuple[Context, str]:
    context = context_of(request)
    return context, context.package(request.path_params["model"]).name


def _state(context: Context, model: str) -> Response:
    """Return `{"model", "state"}` as it is now: what was asked has only begun."""
    state = context.loop.snapshot().models[model].state
    return json_response({"model": model, "state": state}, 202)


def _log(context: Context, model: str) -> Sequence[str]:
    """Return the last lines of the model's process, and then those of an import that failed."""
    unread = context.schemas.unreadable(model)
    return (*context.loop.log_tail(model), *(unread.log if unread else ()))


def add_routes(app: Starlette) -> None:
    """Add the operator's routes."""
    app.add_route("/health", health, methods=["GET"])
    app.add_route("/ready", ready, methods=["GET"])
    app.add_route("/status", status, methods=["GET"])
    app.add_route("/metrics", metrics, methods=["GET"])
    app.add_route("/models/{model}/logs", model_logs, methods=["GET"])
    app.add_route("/models/{model}/restart", restart, methods=["POST"])
    app.add_route("/models/{model}/load", load, methods=["POST"])
    app.add_route("/models/{model}/unload", unload, methods=["POST"])
    app.add_route("/models/{model}/promote", promote, methods=["POST"])
    app.add_route("/models/{model}/rollback", rollback, methods=["POST"])
