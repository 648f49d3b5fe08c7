"""/openapi.json and /docs: the routes as they are, each model with its own inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.api.context import Context

REF = "#/components/schemas/"
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


def build_openapi(context: Context) -> dict[str, Any]:
    """The whole document. A model whose schema is not at hand yet is shown without inputs."""
    components: dict[str, Any] = {"Error": dict(ERROR_SCHEMA)}
    paths: dict[str, Any] = {
        "/health": {"get": _operation("Is the process up", "Operations", needs_key=False)},
        "/ready": {"get": _operation("Are predictions accepted", "Operations")},
        "/status": {"get": _operation("Models, queues, memory", "Operations")},
        "/predictions/{prediction_id}": {
            "get": _operation("State of an asynchronous prediction", "Predictions", by_id=True)
        },
        "/predictions/{prediction_id}/cancel": {
            "post": _operation("Cancel a prediction", "Predictions", by_id=True)
        },
    }
    for name in context.packages:
        schema = context.schemas.get(name)
        if schema is not None:
            _merge_schemas(name, schema, components)
        paths[f"/{name}"] = {"post": _model_operation(name, schema is not None)}
        paths |= _cog_paths(name, schema is not None)
    return {
        "openapi": "3.0.3",
        "info": {"title": "CALLME GPU backend", "version": "0.1.0"},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    summary: str, tag: str, *, by_id: bool = False, needs_key: bool = True
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "responses": {
            "200": {
                "description": "Done",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "default": _error_answer(),
        },
    }
    if needs_key:
        operation["security"] = [{"key": []}, {}]
    if by_id:
        operation["parameters"] = [
            {
                "name": "prediction_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
            }
        ]
    return operation


def _model_operation(name: str, described: bool) -> dict[str, Any]:
    operation = _operation(f"Predict with {name}", "Models")
    form = {"$ref": f"{REF}{name}.Form"} if described else {"type": "object"}
    output = {"$ref": f"{REF}{name}.Output"} if described else {}
    operation["requestBody"] = {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}},
    }
    operation["responses"]["200"]["content"]["application/json"]["schema"] = output
    operation["responses"]["202"] = {
        "description": "It goes on; ask for it at Location",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    return operation


def _cog_paths(name: str, described: bool) -> dict[str, Any]:
    root, tag = f"/models/{name}", "Cog"
    create = _operation(f"Predict with {name}, as Cog's server does", tag)
    wanted = {"$ref": f"{REF}{name}.Input"} if described else {"type": "object"}
    create["requestBody"] = {
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"input": wanted}}}
        }
    }
    create["responses"]["202"] = {"description": "It goes on; ask for it at Location"}
    create["responses"]["422"] = {"description": "An input cannot be used"}
    put = {**create, "summary": "The same, never twice for one id"}
    put["parameters"] = _operation("", tag, by_id=True)["parameters"]
    one = f"{root}/predictions/{{prediction_id}}"
    return {
        f"{root}/health-check": {"get": _operation(f"Health of {name}", tag)},
        f"{root}/openapi.json": {"get": _operation(f"Schema of {name}", tag)},
        f"{root}/predictions": {"post": create},
        one: {"put": put, "get": _operation("State of a prediction", tag, by_id=True)},
        f"{one}/cancel": {"post": _operation("Cancel a prediction", tag, by_id=True)},
    }


def _error_answer() -> dict[str, Any]:
    return {
        "description": "An error",
        "content": {"application/json": {"schema": {"$ref": f"{REF}Error"}}},
    }


def _merge_schemas(name: str, schema: Mapping[str, Any], components: dict[str, Any]) -> None:
    """The package's schemas under `name.`, and its inputs as a form: a file is binary."""
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
    """The schema with every reference pointed at this model's own schemas."""
    if isinstance(value, Mapping):
        out = {k: _renamed(v, name) for k, v in value.items()}
        if isinstance(ref := out.get("$ref"), str):
            out["$ref"] = ref.replace(REF, f"{REF}{name}.")
        return out
    if isinstance(value, list):
        return [_renamed(v, name) for v in value]
    return value
