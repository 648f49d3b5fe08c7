"""Cog's and Replicate's API as OpenAPI paths, and the common shape of every operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.prediction import WebhookEvent

REF = "#/components/schemas/"
ID = "prediction_id"
REPLICATE = "Replicate"
BINARY: Mapping[str, Any] = {"type": "string", "format": "binary"}
WEBHOOK: Mapping[str, Any] = {
    "webhook": {"type": "string", "format": "uri"},
    "webhook_events_filter": {
        "type": "array",
        "items": {"type": "string", "enum": [*WebhookEvent]},
    },
}


def operation(
    summary: str,
    tag: str,
    *,
    in_path: tuple[str, ...] = (),
    in_query: Mapping[str, Mapping[str, Any]] | None = None,
    needs_key: bool = True,
) -> dict[str, Any]:
    """Return an operation that answers a JSON object, or an error in the shape of its API.

    `in_query`: the schemas of its parameters, which may be left out, by name.
    """
    error = "Problem" if tag == REPLICATE else "Error"
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
                "content": {"application/json": {"schema": {"$ref": f"{REF}{error}"}}},
            },
        },
    }
    if needs_key:
        described["security"] = [{"key": []}, {}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in in_path
    ]
    parameters += [
        {"name": name, "in": "query", "schema": dict(schema)}
        for name, schema in (in_query or {}).items()
    ]
    if parameters:
        described["parameters"] = parameters
    return described


def deletion(summary: str, tag: str, *, in_path: tuple[str, ...]) -> dict[str, Any]:
    """Return an operation that answers nothing when it is done."""
    described = operation(summary, tag, in_path=in_path)
    responses = described["responses"]
    responses["204"] = {"description": responses.pop("200")["description"]}
    return described


def cog_paths(name: str, described: bool) -> dict[str, Any]:
    """Return the paths of Cog's API for one model."""
    root, tag = f"/models/{name}", "Cog"
    create = operation(f"Predict with {name}, as Cog's server does", tag)
    wanted = {"$ref": f"{REF}{name}.Input"} if described else {"type": "object"}
    create["requestBody"] = _json_body({"input": wanted, **WEBHOOK})
    create["responses"]["202"] = {
        "description": "The prediction continues; its state is at the Location header's URL"
    }
    create["responses"]["422"] = {
        "description": "An input cannot be used",
        "content": {"application/json": {"schema": {"$ref": f"{REF}Detail"}}},
    }
    put = {**create, "summary": "As POST, but an id never runs twice"}
    put["parameters"] = operation("", tag, in_path=(ID,))["parameters"]
    one = f"{root}/predictions/{{prediction_id}}"
    return {
        root: {"get": operation(f"The paths of {name}, as Cog's server lists them", tag)},
        f"{root}/logs": {"get": operation(f"The last lines that {name} printed", "Operations")},
        f"{root}/view.json": {"get": operation(f"What a page shows first of {name}", "Operations")},
        f"{root}/example.json": {"get": operation(f"The example of {name}", "Operations")},
        f"{root}/example/{{input}}": {
            "get": _binary(operation("A file of the example", "Operations", in_path=("input",)))
        },
        **{
            f"{root}/{verb}": {"post": operation(f"{verb.capitalize()} {name}", "Operations")}
            for verb in ("restart", "load", "unload", "promote", "rollback")
        },
        f"{root}/health-check": {"get": operation(f"Health of {name}", tag)},
        f"{root}/openapi.json": {"get": operation(f"Schema of {name}", tag)},
        f"{root}/predictions": {"post": create},
        one: {"put": put, "get": operation("State of a prediction", tag, in_path=(ID,))},
        f"{one}/cancel": {"post": operation("Cancel a prediction", tag, in_path=(ID,))},
    }


def _binary(described: dict[str, Any]) -> dict[str, Any]:
    described["responses"]["200"]["content"] = {"application/octet-stream": {"schema": BINARY}}
    return described


def replicate_paths() -> dict[str, Any]:
    """Return the paths of Replicate's API. Replicate's own reference has their parameters.

    Paths that only refuse are left out (`router.http.apis.replicate_catalog`).
    """
    model, one = ("owner", "name"), ("id",)
    root = "/v1/models/{owner}/{name}"
    version = {"version": {"type": "string"}}
    create = _create("Predict, with a version's id or owner/name", version)
    found = _get("Search models, collections and pages")
    found["parameters"] = [
        _in_query("query", {"type": "string"}, required=True),
        _in_query("limit", {"type": "integer", "minimum": 1, "maximum": 50}),
    ]
    time = {"type": "string", "format": "date-time"}
    listed = _get("The caller's predictions, newest first")
    listed["parameters"] = [
        _in_query("created_after", time),
        _in_query("created_before", time),
        _in_query("source", {"type": "string", "enum": ["web"]}),
        _in_query("cursor", {"type": "string"}),
    ]
    return {
        "/v1/predictions": {"post": create, "get": listed},
        "/v1/predictions/{id}": {"get": _get("State of a prediction", one)},
        "/v1/predictions/{id}/cancel": {
            "post": operation("Cancel a prediction", REPLICATE, in_path=one)
        },
        "/v1/streams/{id}": {"get": _by_token("Follow a prediction", one, "text/event-stream")},
        "/v1/files/streams/{id}": {
            "get": _by_token("Follow a prediction with files as output", one, "text/event-stream")
        },
        "/v1/outputs/{id}/{name}": {
            "get": _by_token("A file of an output", ("id", "name"), "application/octet-stream")
        },
        "/v1/remote-files/{id}/{name}": _remote_file(),
        "/v1/files": {"post": _upload(), "get": _get("The caller's files")},
        "/v1/files/{id}": {
            "get": _get("A file", one),
            "delete": deletion("Delete a file", REPLICATE, in_path=one),
        },
        "/v1/files/{id}/download": {
            "get": _get("The content of a file", one, "application/octet-stream")
        },
        "/v1/models": {
            "get": _get("List models"),
            # OpenAPI 3.0 does not know this method.
            "x-query": operation("Search models", REPLICATE),
        },
        root: {"get": _get("A model", model)},
        f"{root}/predictions": {"post": _create("Predict with a model", {}, in_path=model)},
        f"{root}/versions": {"get": _get("A model's versions", model)},
        f"{root}/versions/{{version}}": {"get": _get("A version", (*model, "version"))},
        f"{root}/examples": {"get": _get("A model's examples: none", model)},
        f"{root}/readme": {"get": _get("A model's README.md", model, "text/plain")},
        "/v1/search": {"get": found},
        "/v1/hardware": {"get": _get("The hardware that the models run on")},
        "/v1/collections": {"get": _get("Collections: none")},
        "/v1/deployments": {"get": _get("Deployments: none")},
        "/v1/trainings": {"get": _get("Trainings: none")},
        "/v1/account": {"get": _get("The account")},
        "/v1/webhooks/default/secret": {"get": _get("The secret that signs webhooks")},
    }


def _get(
    summary: str, in_path: tuple[str, ...] = (), media_type: str = "application/json"
) -> dict[str, Any]:
    described = operation(summary, REPLICATE, in_path=in_path)
    if media_type != "application/json":
        text = {"type": "string"} if media_type.startswith("text/") else BINARY
        described["responses"]["200"]["content"] = {media_type: {"schema": text}}
    return described


def _by_token(summary: str, in_path: tuple[str, ...], media_type: str) -> dict[str, Any]:
    """Return an operation that needs a token in its URL and no key."""
    described = _get(summary, in_path, media_type)
    del described["security"]
    described["parameters"].append(_in_query("token", {"type": "string"}, required=True))
    return described


def _remote_file() -> dict[str, Any]:
    """Return the operations by which another machine of the box gets and sends files."""
    path, media_type = ("id", "name"), "application/octet-stream"
    read = _by_token("A file for another machine that runs its prediction", path, media_type)
    write = _by_token("A file of an output, from that machine", path, media_type)
    for described in (read, write):
        described["parameters"].append(_in_query("expires", {"type": "string"}, required=True))
    write["responses"]["204"] = {"description": "It was stored"}
    del write["responses"]["200"]
    write["requestBody"] = {"required": True, "content": {media_type: {"schema": BINARY}}}
    return {"get": read, "put": write}


def _in_query(name: str, schema: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": dict(schema)}


def _upload() -> dict[str, Any]:
    described = operation("Upload a file", REPLICATE)
    described["responses"]["201"] = described["responses"].pop("200")
    text = {"type": "string"}
    properties = {"content": BINARY, "filename": text, "type": text, "metadata": {"type": "object"}}
    form = {"type": "object", "required": ["content"], "properties": properties}
    described["requestBody"] = {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}},
    }
    return described


def _create(summary: str, more: Mapping[str, Any], in_path: tuple[str, ...] = ()) -> dict[str, Any]:
    described = operation(summary, REPLICATE, in_path=in_path)
    described["requestBody"] = _json_body({"input": {"type": "object"}, **more, **WEBHOOK})
    responses = described["responses"]
    responses["201"] = responses.pop("200")
    responses["202"] = {"description": "It has not ended within `Prefer: wait`"}
    return described


def _json_body(properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(properties)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}
