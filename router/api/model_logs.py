"""GET /models/{model}/logs: what a model's process printed last."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.api.caller import admin_only
from router.api.context import context_of
from router.api.error_handlers import json_response


@admin_only
async def model_logs(request: Request) -> Response:
    """`{"model", "lines"}`, oldest first; those of its last process when it has ended."""
    context = context_of(request)
    package = context.package(request.path_params["model"])
    return json_response(
        {"model": package.name, "lines": list(context.loop.log_tail(package.name))}
    )


def add_routes(app: Starlette) -> None:
    """The route."""
    app.add_route("/models/{model}/logs", model_logs, methods=["GET"])
