"""Print what a Cog runner takes and gives, in the shape that `cog build` writes.

Run as a script, by path, in the package's folder with the package's own interpreter, which
need not have the router: `python runner_schema.py run.py:Runner`. The last line of stdout is
`{"schema": <OpenAPI 3.0.2>, "max_concurrency": n}`; anything the runner's import prints comes
before it.

The target is pkg/schema/openapi_spec.go of cog 0.23.1. Cog infers it from source at build
time; here the live class is asked through `cog._inspector`, which is private API, so the
version is pinned and tests/router/test_runner_schema.py compares the result with what the
running server validates.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

# Input's own names on the left, JSON schema's on the right.
LIMITS = (
    ("description", "description"),
    ("ge", "minimum"),
    ("le", "maximum"),
    ("min_length", "minLength"),
    ("max_length", "maxLength"),
    ("regex", "pattern"),
)


def input_property(name: str, field: Any, enums: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The property of one input, and whether it must be given. Choices go into `enums`."""
    prop: dict[str, Any] = {"x-order": field.order}
    json_type = field.type.json_type()
    if field.choices:
        enums[name] = {
            "title": name,
            "description": "An enumeration.",
            "enum": list(field.choices),
            "type": json_type["type"],
        }
        prop["allOf"] = [{"$ref": f"#/components/schemas/{name}"}]
    else:
        prop["title"] = name.replace("_", " ").title()
        prop.update(json_type)
    is_secret = field.type.primitive.name == "SECRET"
    nullable = field.type.repetition.name.startswith("OPTIONAL") or (
        is_secret and field.default is None
    )
    if field.default is not None:
        prop["default"] = field.default
    if nullable:
        prop["nullable"] = True
    for attribute, key in LIMITS:
        value = getattr(field, attribute)
        if value is not None:
            prop[key] = value
    return prop, field.default is None and not nullable


def openapi(info: Any) -> dict[str, Any]:
    """The whole document for a runner that cog's inspector has read."""
    enums: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, field in info.inputs.items():
        properties[name], is_required = input_property(name, field, enums)
        if is_required:
            required.append(name)
    inputs: dict[str, Any] = {"title": "Input", "type": "object", "properties": properties}
    if required:
        inputs["required"] = required
    ref = "#/components/schemas/"
    request = {
        "title": "PredictionRequest",
        "type": "object",
        "properties": {
            "id": {"title": "Id", "type": "string"},
            "input": {"$ref": f"{ref}Input"},
        },
    }
    response = {
        "title": "PredictionResponse",
        "type": "object",
        "properties": {
            "input": {"$ref": f"{ref}Input"},
            "output": {"$ref": f"{ref}Output"},
            "id": {"title": "Id", "type": "string"},
            "status": {"title": "Status", "type": "string"},
            "error": {"title": "Error", "type": "string"},
            "logs": {"title": "Logs", "type": "string"},
            "metrics": {"title": "Metrics", "type": "object"},
        },
    }
    operation = {
        "summary": "Predict",
        "description": "Run a single prediction on the model",
        "operationId": "predict_predictions_post",
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": f"{ref}PredictionRequest"}}}
        },
        "responses": {
            "200": {
                "description": "Successful Response",
                "content": {"application/json": {"schema": {"$ref": f"{ref}PredictionResponse"}}},
            }
        },
    }
    schemas = {
        "Input": inputs,
        "Output": info.output.json_type(),
        **enums,
        "PredictionRequest": request,
        "PredictionResponse": response,
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {"/predictions": {"post": operation}},
        "components": {"schemas": schemas},
    }


def describe(runner: str) -> dict[str, Any]:
    """Schema and concurrency of `file.py:Name` in the current folder."""
    from cog import _inspector  # noqa: PLC0415 - the script must be importable without cog

    file_name, _, name = runner.partition(":")
    module_name = Path(file_name).stem
    info = _inspector.create_predictor(module_name, name)
    target = getattr(importlib.import_module(module_name), name)
    handler = getattr(target, "run", None) or getattr(target, "predict", None) or target
    return {
        "schema": openapi(info),
        "max_concurrency": getattr(handler, "__cog_concurrent_max__", 1),
    }


if __name__ == "__main__":
    # Run by path, Python puts this file's folder first; the package's own must be there.
    sys.path[0] = str(Path.cwd())
    sys.stdout.write("\n" + json.dumps(describe(sys.argv[1])) + "\n")
