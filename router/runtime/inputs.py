"""What a model takes: from its OpenAPI schema to checked values, out of JSON or form text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
import orjson

from router.domain.errors import InvalidInput
from router.domain.prediction import Json

INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off"})
SHOWN_CHARS = 80
MAX_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class Field:
    """One input. `kind` and `item_kind` are JSON schema types, or `file`."""

    name: str
    kind: str
    item_kind: str | None
    nullable: bool
    required: bool
    schema: Mapping[str, Any]

    @property
    def is_file(self) -> bool:
        """True for one file or a list of files."""
        return "file" in (self.kind, self.item_kind)


class InputSpec:
    """The inputs of one model."""

    def __init__(self, openapi: Mapping[str, Any]) -> None:
        components = openapi["components"]["schemas"]
        inputs = components["Input"]
        required = set(inputs.get("required", ()))
        self.fields = {
            name: _field(name, prop, components, name in required)
            for name, prop in sorted(
                inputs.get("properties", {}).items(), key=lambda kv: kv[1].get("x-order", 0)
            )
        }
        self._validators = {
            name: jsonschema.Draft202012Validator(f.schema)
            for name, f in self.fields.items()
            if not f.is_file
        }

    def field(self, name: str) -> Field:
        """The input of that name. Raises InvalidInput."""
        if name not in self.fields:
            known = ", ".join(self.fields)
            raise invalid(name, f"there is no such input; there are: {known}")
        return self.fields[name]

    def from_text(self, name: str, texts: list[str]) -> Json:
        """Form text to the type that the schema declares; None when the form left it blank.

        A list may come as repeated parts or as one JSON array. Raises InvalidInput.
        """
        f = self.field(name)
        if f.kind == "array":
            if len(texts) == 1 and texts[0].lstrip().startswith("["):
                return _json(name, texts[0])
            return [_convert(name, f.item_kind or "string", t) for t in texts if t]
        if len(texts) > 1:
            raise invalid(name, f"must be given once, got {len(texts)}")
        return _convert(name, f.kind, texts[0])

    def check(self, values: Mapping[str, Json], given_files: Iterable[str]) -> dict[str, Json]:
        """The values with nulls left out, once each has been found to fit its schema.

        Raises InvalidInput that lists every problem, not only the first.
        """
        problems: list[dict[str, str]] = []
        given = {k: v for k, v in values.items() if not (v is None and self._may_be_null(k))}
        present = given.keys() | set(given_files)
        for name, f in self.fields.items():
            if name not in present:
                if f.required:
                    problems.append({"input": name, "message": "is required"})
            elif name in self._validators and (told := self._objection(name, given[name])):
                problems.append({"input": name, "message": told})
        for name in given.keys() - self.fields.keys():
            problems.append({"input": name, "message": "there is no such input"})
        if problems:
            first = problems[0]
            raise InvalidInput(
                f"Cannot use '{first['input']}': {first['message']}",
                details={"problems": problems},
            )
        return given

    def _objection(self, name: str, value: Json) -> str | None:
        """The first thing that is wrong with the value: looking for all of them in a list of
        millions would hold up every other request."""
        if isinstance(value, list) and len(value) > MAX_ITEMS:
            return f"must have at most {MAX_ITEMS} items, got {len(value)}"
        error = next(self._validators[name].iter_errors(value), None)
        return None if error is None else _wording(error)

    def _may_be_null(self, name: str) -> bool:
        f = self.fields.get(name)
        return f is not None and (f.nullable or f.is_file) and not f.required


def invalid(name: str, message: str) -> InvalidInput:
    """The error for one input."""
    return InvalidInput(
        f"Cannot use '{name}': {message}",
        details={"problems": [{"input": name, "message": message}]},
    )


def _field(
    name: str, prop: Mapping[str, Any], components: Mapping[str, Any], required: bool
) -> Field:
    merged = _resolve(prop, components)
    items = _resolve(merged["items"], components) if "items" in merged else None
    return Field(
        name=name,
        kind=_kind(merged),
        item_kind=_kind(items) if items else None,
        nullable=bool(merged.get("nullable")),
        required=required,
        schema={**merged, "items": items} if items else merged,
    )


def _resolve(schema: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with `$ref` and `allOf` of cog's enums written out in place."""
    out = dict(schema)
    for part in [out, *out.pop("allOf", ())]:
        if ref := part.get("$ref"):
            out = {**components[ref.rsplit("/", 1)[-1]], **out}
    out.pop("$ref", None)
    return out


def _kind(schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "string" and schema.get("format") == "uri":
        return "file"
    return str(schema.get("type", "object"))


def _convert(name: str, kind: str, text: str) -> Json:
    stripped = text.strip()
    if kind in ("string", "file"):
        return text
    if not stripped:
        return None
    match kind:
        case "integer":
            if not INTEGER.fullmatch(stripped):
                raise invalid(name, f"must be a whole number, got {_shown(text)}")
            return int(stripped)
        case "number":
            return _number(name, stripped)
        case "boolean":
            if stripped.lower() not in TRUE | FALSE:
                raise invalid(name, f"must be true or false, got {_shown(text)}")
            return stripped.lower() in TRUE
        case _:
            return _json(name, text)


def _number(name: str, text: str) -> float:
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise invalid(name, f"must be a number, got {_shown(text)}")
    return value


def _json(name: str, text: str) -> Json:
    try:
        return load_json(text)
    except ValueError as error:
        raise invalid(name, f"must be JSON, got {_shown(text)}") from error


def load_json(text: str | bytes) -> Json:
    """The value, if it can be written again too: orjson reads deeper than it writes, and Python
    shows no deeper than it recurses. Raises ValueError."""
    value = orjson.loads(text)
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


WORDINGS: Mapping[str, str] = {
    "minimum": "must be at least {limit}, got {got}",
    "maximum": "must be at most {limit}, got {got}",
    "enum": "must be one of {limit}, got {got}",
    "type": "must be of type {limit}, got {got}",
    "minLength": "must have at least {limit} characters, got {length}",
    "maxLength": "must have at most {limit} characters, got {length}",
    "pattern": "must match {limit}, got {got}",
}


def _wording(error: jsonschema.ValidationError) -> str:
    template = WORDINGS.get(str(error.validator))
    if template is None:
        return _shown(error.message)
    value: Any = error.instance
    length = len(value) if isinstance(value, str) else 0
    return template.format(limit=error.validator_value, got=_shown(value), length=length)
