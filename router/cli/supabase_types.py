"""TypeScript types of models' inputs and outputs, for the client in supabase/client."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

HEAD = """\
// Written by `callme supabase types`. Run it again after a model has changed.
//
//   const callme = createCallme<Models>(supabase);
//   const { output } = await callme.run("…", { … });

/** A file that `run` uploads, or `storage://callme-inputs/…`, `storage://callme-outputs/…` or a
 * public URL. */
export type FileInput = Blob | string;

/** `storage://callme-outputs/…`; `callme.url()` makes a URL of it. */
export type FileOutput = string;
"""
SCALARS = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
# A schema that refers to itself would have a type without an end.
MAX_LEVELS = 20
LIMITS = (
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
    ("minLength", "length at least {}"),
    ("maxLength", "length at most {}"),
    ("pattern", "matches {}"),
    ("x-cog-accept", "accepts {}"),
)

Schema = Mapping[str, Any]


def render(documents: Mapping[str, Schema]) -> str:
    """Return a TypeScript module with the type `Models`. `documents`: the OpenAPI document of each
    model by its name."""
    models = "".join(_model(name, documents[name]) for name in sorted(documents))
    return f"{HEAD}\nexport type Models = {{\n{models}}};\n"


def _model(name: str, document: Schema) -> str:
    components = document["components"]["schemas"]
    given = _Writer(components, "FileInput").write(components.get("Input", {"properties": {}}), 2)
    made = _Writer(components, "FileOutput").write(components.get("Output", {}), 2)
    return f"  {_key(name)}: {{\n    input: {given};\n    output: {made};\n  }};\n"


class _Writer:
    """Writes types. `components`: what a `$ref` refers to. `file`: the type of a file."""

    def __init__(self, components: Mapping[str, Schema], file: str) -> None:
        self._components = components
        self._file = file
        self._level = 0

    def write(self, schema: Schema, indent: int) -> str:
        """Return the type of a schema. `indent`: where its closing brace is, in levels."""
        return " | ".join(self._members(schema, indent)) or "never"

    def _members(self, schema: Schema, indent: int) -> list[str]:
        """Return the members of the union that the schema is, each once, null last."""
        if self._level >= MAX_LEVELS:
            return ["unknown"]
        self._level += 1
        schema = self._resolve(schema)
        found = dict.fromkeys(self._bare(schema, indent))
        self._level -= 1
        if "unknown" in found:
            return ["unknown"]
        is_nullable = bool(schema.get("nullable")) or "null" in found
        return [member for member in found if member != "null"] + ["null"] * is_nullable

    def _resolve(self, schema: Schema) -> dict[str, Any]:
        """Return the schema with its `$ref` and `allOf` replaced by what they refer to."""
        out = dict(schema)
        for _ in range(MAX_LEVELS):
            parts = [*out.pop("allOf", ())]
            if ref := out.pop("$ref", None):
                parts.append(self._components.get(ref.rsplit("/", 1)[-1], {}))
            if not parts:
                break
            for part in parts:
                out = {**part, **out}
        return out

    def _bare(self, schema: Schema, indent: int) -> list[str]:  # noqa: PLR0911 - one for each kind
        if "enum" in schema:
            return [_literal(value) for value in schema["enum"]]
        if "const" in schema:
            return [_literal(schema["const"])]
        if union := schema.get("anyOf") or schema.get("oneOf"):
            return [part for member in union for part in self._members(member, indent)]
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            return [t for one in kind for t in self._bare({**schema, "type": one}, indent)]
        if kind == "string" and schema.get("format") == "uri":
            return [self._file]
        if kind == "array":
            items = self._members(schema.get("items", {}), indent) or ["never"]
            return [f"({' | '.join(items)})[]" if len(items) > 1 else f"{items[0]}[]"]
        if kind == "object":
            return [self._object(schema, indent)]
        return [SCALARS.get(str(kind), "unknown")]

    def _object(self, schema: Schema, indent: int) -> str:
        properties: Mapping[str, Schema] = schema.get("properties") or {}
        if not properties and "properties" in schema:
            return "Record<string, never>"
        if not properties:
            others = schema.get("additionalProperties")
            value = self.write(others, indent) if isinstance(others, Mapping) else "unknown"
            return f"Record<string, {value}>"
        required = schema.get("required", ())
        margin = "  " * (indent + 1)
        lines = []
        for name, prop in properties.items():
            if comment := _comment(self._resolve(prop)):
                lines.append(f"{margin}/** {comment} */\n")
            mark = "" if name in required else "?"
            lines.append(f"{margin}{_key(name)}{mark}: {self.write(prop, indent + 1)};\n")
        return "{\n" + "".join(lines) + "  " * indent + "}"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if IDENTIFIER.fullmatch(name) else _literal(name)


def _comment(schema: Schema) -> str:
    """What a person should know: the description, the limits, the default."""
    said = " ".join(str(schema.get("description", "")).split())
    if said == "An enumeration.":  # what cog says of every choice
        said = ""
    facts = [text.format(_whole(schema[key])) for key, text in LIMITS if key in schema]
    if "default" in schema:
        facts.append(f"default {_literal(_whole(schema['default']))[:200]}")
    if schema.get("x-cog-secret"):
        facts.append("the row keeps it in plain text")
    listed = f" ({', '.join(facts)})" if facts else ""
    deprecated = " @deprecated" if schema.get("deprecated") else ""
    return f"{said}{listed}{deprecated}".strip().replace("*/", "* /")


def _whole(value: Any) -> Any:
    """10 for 10.0, as it is written in JavaScript."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
