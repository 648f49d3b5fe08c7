"""/openapi.json shows every route, and every path in it is one."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from starlette.routing import Route

from router.app import create_app
from router.http.context import Context
from router.http.openapi import build_openapi
from router.inputs.model_schemas import ModelSchemas
from router.models.catalog import Package
from router.models.schemas import describe
from router.settings import Settings

# The document itself.
NOT_SHOWN = {"/openapi.json"}
NAMES = ("a-model", "another")
# Methods that OpenAPI 3.0 has no name for, and how they are written.
OTHERS = {"x-query": "QUERY"}

Operation = tuple[str, str]


def document(folder: Path) -> dict[str, Any]:
    """Of a box with two models, of one of which nothing is known yet."""
    needed = [f.name for f in fields(Context) if f.default is f.default_factory is MISSING]
    packages = {name: Package(name, folder, "", Path("python")) for name in NAMES}
    schemas = ModelSchemas(describe)
    others = {**dict.fromkeys(needed), "packages": packages, "schemas": schemas}
    context = Context(**others)  # type: ignore[arg-type]
    schema: dict[str, Any] = {
        "components": {"schemas": {"Input": {"properties": {}}, "Output": {}}}
    }
    schemas.openapi[NAMES[0]] = schema
    return build_openapi(context)


def shape(path: str) -> str:
    """The path without the names of what stands in it."""
    for name in NAMES:
        path = re.sub(rf"(?<=/){name}(?=/|$)", "{}", path)
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_routes_and_paths_are_the_same(tmp_path: Path) -> None:
    """Both ways: method by method, each model's paths standing for `{model}`. A route that only
    refuses says so by `include_in_schema`."""
    app = create_app(Settings(packages_dir=tmp_path, state_dir=tmp_path / "state"))
    routes: set[Operation] = set()
    for route in app.routes:
        assert isinstance(route, Route)
        if route.include_in_schema and route.path not in NOT_SHOWN:
            methods = (route.methods or set()) - {"HEAD"}
            routes |= {(method, shape(route.path)) for method in methods}
    shown = {
        (OTHERS.get(method, method.upper()), shape(path))
        for path, operations in document(tmp_path)["paths"].items()
        for method in operations
    }
    assert routes - shown == set(), "not in the document"
    assert shown - routes == set(), "no such route"


def test_what_operations_name_is_there(tmp_path: Path) -> None:
    """Every parameter of a path is declared, and every reference leads somewhere."""
    made = document(tmp_path)
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert declared == set(re.findall(r"\{([^}]*)\}", path)), (method, path)
    references = re.findall(r"'\$ref': '#/components/schemas/([^']*)'", str(made))
    assert references
    assert set(references) <= made["components"]["schemas"].keys()
    problem = made["paths"]["/v1/hardware"]["get"]["responses"]["default"]
    assert problem["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
