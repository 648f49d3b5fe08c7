"""/openapi.json, which /docs shows: the actual routes, each model with its own inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router import __version__
from router.http.context import Context
from router.http.openapi_apis import ID, REF, cog_paths, deletion, operation, replicate_paths
from router.predictions.usage import DEFAULT_DAYS, KEPT_DAYS

DAYS: Mapping[str, Any] = {
    "type": "integer",
    "minimum": 1,
    "maximum": KEPT_DAYS,
    "default": DEFAULT_DAYS,
}

ERROR_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
            },
        }
    },
}

PROBLEM_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["title", "detail", "status", "code"],
    "properties": {
        "title": {"type": "string"},
        "detail": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "invalid_fields": {"type": "array", "items": {"type": "object"}},
    },
}
DETAIL_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"type": "array", "items": {"type": "object"}}},
}


def build_openapi(context: Context) -> dict[str, Any]:
    """Return the whole document. A model whose schema is not known yet has no inputs in it."""
    components: dict[str, Any] = {
        "Error": dict(ERROR_SCHEMA),
        "Problem": dict(PROBLEM_SCHEMA),
        "Detail": dict(DETAIL_SCHEMA),
    }
    paths: dict[str, Any] = {
        "/health": {"get": operation("Is the process up", "Operations", needs_key=False)},
        "/ready": {"get": operation("Are predictions accepted", "Operations")},
        "/usage": {
            "get": operation(
                "Who has used which model how much", "Operations", in_query={"days": DAYS}
            )
        },
        "/status": {"get": operation("Models, queues, memory", "Operations")},
        "/metrics": {"get": _text("Metrics for Prometheus", "text/plain")},
        "/events": {"get": _text("Changes of models and predictions", "text/event-stream")},
        "/predictions/{prediction_id}": {
            "get": operation("State of an asynchronous prediction", "Predictions", in_path=(ID,)),
            "delete": deletion("Delete a prediction that has ended", "Predictions", in_path=(ID,)),
        },
        "/predictions/{prediction_id}/cancel": {
            "post": operation("Cancel a prediction", "Predictions", in_path=(ID,))
        },
    }
    paths |= replicate_paths()
    for name in context.models:
        schema = context.schemas.openapi.get(name)
        if schema is not None:
            _merge_schemas(name, schema, components)
        paths[f"/{name}"] = {"post": _model_operation(name, schema is not None)}
        paths |= cog_paths(name, schema is not None)
    return {
        "openapi": "3.0.3",
        "info": {"title": "CALLME GPU backend", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _text(summary: str, media_type: str) -> dict[str, Any]:
    described = operation(summary, "Operations")
    described["responses"]["200"]["content"] = {media_type: {"schema": {"type": "string"}}}
    return described


def _model_operation(name: str, described: bool) -> dict[str, Any]:
    predict = operation(f"Predict with {name}", "Models")
    form = {"$ref": f"{REF}{name}.Form"} if described else {"type": "object"}
    output = {"$ref": f"{REF}{name}.Output"} if described else {}
    predict["requestBody"] = {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}},
    }
    predict["responses"]["200"]["content"]["application/json"]["schema"] = output
    predict["responses"]["202"] = {
        "description": "The prediction continues; its state is at the Location header's URL",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    return predict


def _merge_schemas(name: str, schema: Mapping[str, Any], components: dict[str, Any]) -> None:
    """Add the package's schemas under `name.`, and its inputs as a form, where a file is binary."""
    for key, value in schema["components"]["schemas"].items():
        components[f"{name}.{key}"] = _renamed(value, name)
    inputs = components[f"{name}.Input"]
    form = {k: _as_form(v) for k, v in inputs.get("properties", {}).items()}
    components[f"{name}.Form"] = {**inputs, "title": f"{name} form", "properties": form}


def _as_form(prop: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(prop)
    if "items" in out:
        out["items"] = _as_form(out["items"])
    if out.get("format") == "uri":
        out["format"] = "binary"
    return out


def _renamed(value: Any, name: str) -> Any:
    """Return the schema with every reference changed to this model's own schemas."""
    if isinstance(value, Mapping):
        out = {k: _renamed(v, name) for k, v in value.items()}
        if isinstance(ref := out.get("$ref"), str):
            out["$ref"] = ref.replace(REF, f"{REF}{name}.")
        return out
    if isinstance(value, list):
        return [_renamed(v, name) for v in value]
    return value
