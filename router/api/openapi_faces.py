"""The two JSON faces as OpenAPI paths, and what every operation of the document looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REF = "#/components/schemas/"
ID = "prediction_id"
WEBHOOK: Mapping[str, Any] = {
    "webhook": {"type": "string", "format": "uri"},
    "webhook_events_filter": {
        "type": "array",
        "items": {"type": "string", "enum": ["start", "output", "logs", "completed"]},
    },
}


def operation(
    summary: str, tag: str, *, in_path: tuple[str, ...] = (), needs_key: bool = True
) -> dict[str, Any]:
    """An operation that answers a JSON object, or an error."""
    described: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "responses": {
            "200": {
                "description": "Done",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "default": {
                "description": "An error",
                "content": {"application/json": {"schema": {"$ref": f"{REF}Error"}}},
            },
        },
    }
    if needs_key:
        described["security"] = [{"key": []}, {}]
    if in_path:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in in_path
        ]
    return described


def cog_paths(name: str, described: bool) -> dict[str, Any]:
    """Cog's face of one model."""
    root, tag = f"/models/{name}", "Cog"
    create = operation(f"Predict with {name}, as Cog's server does", tag)
    wanted = {"$ref": f"{REF}{name}.Input"} if described else {"type": "object"}
    create["requestBody"] = _json_body({"input": wanted, **WEBHOOK})
    create["responses"]["202"] = {"description": "It goes on; ask for it at Location"}
    create["responses"]["422"] = {"description": "An input cannot be used"}
    put = {**create, "summary": "The same, never twice for one id"}
    put["parameters"] = operation("", tag, in_path=(ID,))["parameters"]
    one = f"{root}/predictions/{{prediction_id}}"
    return {
        f"{root}/logs": {"get": operation(f"What {name} printed last", "Operations")},
        f"{root}/health-check": {"get": operation(f"Health of {name}", tag)},
        f"{root}/openapi.json": {"get": operation(f"Schema of {name}", tag)},
        f"{root}/predictions": {"post": create},
        one: {"put": put, "get": operation("State of a prediction", tag, in_path=(ID,))},
        f"{one}/cancel": {"post": operation("Cancel a prediction", tag, in_path=(ID,))},
    }


def replicate_paths() -> dict[str, Any]:
    """Replicate's face; what it needs is in Replicate's own reference."""
    tag, model = "Replicate", ("owner", "name")
    create = _create(
        "Predict, with a version's id or owner/name", tag, {"version": {"type": "string"}}
    )
    by_model = _create("Predict with a model", tag, {}, in_path=model)
    upload = operation("Upload a file", tag)
    upload["requestBody"] = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["content"],
                    "properties": {"content": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
    one = ("id",)
    return {
        "/v1/predictions": {"post": create, "get": operation("List predictions", tag)},
        "/v1/predictions/{id}": {"get": operation("State of a prediction", tag, in_path=one)},
        "/v1/predictions/{id}/cancel": {"post": operation("Cancel a prediction", tag, in_path=one)},
        "/v1/files": {"post": upload, "get": operation("List files", tag)},
        "/v1/files/{id}": {
            "get": operation("A file", tag, in_path=one),
            "delete": operation("Delete a file", tag, in_path=one),
        },
        "/v1/models": {"get": operation("List models", tag)},
        "/v1/models/{owner}/{name}": {"get": operation("A model", tag, in_path=model)},
        "/v1/models/{owner}/{name}/predictions": {"post": by_model},
        "/v1/models/{owner}/{name}/versions": {
            "get": operation("A model's versions", tag, in_path=model)
        },
        "/v1/account": {"get": operation("The account", tag)},
        "/v1/webhooks/default/secret": {"get": operation("What webhooks are signed with", tag)},
    }


def _create(
    summary: str, tag: str, more: Mapping[str, Any], in_path: tuple[str, ...] = ()
) -> dict[str, Any]:
    described = operation(summary, tag, in_path=in_path)
    described["requestBody"] = _json_body({"input": {"type": "object"}, **more, **WEBHOOK})
    responses = described["responses"]
    responses["201"] = responses.pop("200")
    responses["202"] = {"description": "It has not ended within `Prefer: wait`"}
    return described


def _json_body(properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(properties)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}
