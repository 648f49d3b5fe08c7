"""A model's inputs: reads them from its OpenAPI schema, and checks values from JSON or forms."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema_rs import Draft202012Validator, FancyRegexOptions, RegexOptions, ValidationError

from router.errors import InvalidInput
from router.inputs.form_text import Kind, from_texts, invalid, shortened, shown
from router.prediction import Json
from router.secret_inputs import OBJECTION, CheckedInputs, is_secret, split

log = logging.getLogger(__name__)

MAX_ITEMS = 10_000
MOST_NAMED = 20  # known inputs, in the answer to an unknown name
# The whole numbers that orjson can write, coglet can read and a runner gets unchanged.
SMALLEST_INTEGER, LARGEST_INTEGER = -(1 << 63), (1 << 64) - 1
# Above this, a number with a point or an exponent may have been rounded to another number.
LARGEST_EXACT_FLOAT = float(1 << 53)
ANY = tuple(map(Kind, ("integer", "number", "boolean", "array", "object", "string")))
# The first engine takes time in proportion to the text, whatever the pattern. It does not know
# look-around and back-references. The second engine does, and stops after this many steps.
PATTERN_ENGINES = (RegexOptions(), FancyRegexOptions(backtrack_limit=100_000))


@dataclass(frozen=True, slots=True)
class Field:
    """One input. `kinds`: the types that it takes, in most cases one."""

    name: str
    kinds: tuple[Kind, ...]
    nullable: bool
    required: bool
    schema: dict[str, Any]

    @property
    def kind(self) -> str:
        """JSON schema's type or `file`; `union` for several types."""
        return self.kinds[0].name if len(self.kinds) == 1 else "union"

    @property
    def is_file(self) -> bool:
        """True for one file or a list of files."""
        return any("file" in k for k in self.kinds)

    @property
    def takes_whole_numbers_only(self) -> bool:
        """Whether it takes whole numbers and no other numbers."""
        return self._takes("integer") and not self.takes_every_number

    @property
    def takes_every_number(self) -> bool:
        """Whether it takes every number, itself or as items."""
        return self._takes("number")

    def _takes(self, kind: str) -> bool:
        return any(kind in k for k in self.kinds)


class InputSchema:
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
        self.secrets = frozenset(n for n, f in self.fields.items() if is_secret(f.schema))
        self._validators = {
            name: _validator(name, f.schema) for name, f in self.fields.items() if not f.is_file
        }

    def field(self, name: str) -> Field:
        """Return the input of that name. Raises InvalidInput when there is none."""
        if name not in self.fields:
            raise invalid(name, self._no_such_input())
        return self.fields[name]

    def _no_such_input(self) -> str:
        if not self.fields:
            return "there is no such input; the model takes none"
        names = list(self.fields)
        rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return f"there is no such input; there are: {', '.join(names[:MOST_NAMED])}{rest}"

    def from_text(self, name: str, texts: list[str]) -> Json:
        """Convert form text to the type that the schema declares.

        None when the form left it blank. Raises InvalidInput when the text does not fit, and
        PayloadTooLarge when its JSON is too large.
        """
        try:
            return from_texts(name, self.field(name).kinds, texts)
        except InvalidInput:
            if name in self.secrets:
                raise invalid(name, OBJECTION) from None
            raise

    def check(self, values: Mapping[str, Json], given_files: Iterable[str]) -> CheckedInputs:
        """Check each value against its schema. Return them without nulls and with secrets redacted.

        Whole numbers become ints; JSON's 2.0 counts as one for an input that takes no fractions.
        Raises InvalidInput when a value does not fit. The error lists every problem, not only the
        first.
        """
        problems: list[dict[str, str]] = []
        given = {k: v for k, v in values.items() if not (v is None and self._may_be_null(k))}
        present = given.keys() | set(given_files)
        for name, f in self.fields.items():
            if name not in present:
                if f.required:
                    problems.append({"input": name, "message": "is required"})
            elif name in self._validators:
                given[name], objection = self._judge(f, given[name])
                if objection:
                    objection = OBJECTION if name in self.secrets else objection
                    problems.append({"input": name, "message": objection})
        for number, name in enumerate(given.keys() - self.fields.keys()):
            # The list of inputs only once: an answer to thousands of unknown names must not repeat
            # it.
            message = "there is no such input" if number else self._no_such_input()
            problems.append({"input": shortened(name), "message": message})
        if problems:
            first = problems[0]
            raise InvalidInput(
                f"Cannot use '{first['input']}': {first['message']}",
                details={"problems": problems},
            )
        return split(given, self.secrets)

    def _judge(self, field: Field, value: Json) -> tuple[Json, str | None]:
        """Return the value to pass on, and the first thing that is wrong with it or None."""
        if isinstance(value, list) and len(value) > MAX_ITEMS:
            return value, f"must have at most {MAX_ITEMS} items, got {len(value)}"
        error = next(self._validators[field.name].iter_errors(value), None)
        if error is not None:
            return value, _wording(error, value)
        try:
            return _exact(field, value), None
        except ValueError as problem:
            return value, str(problem)

    def _may_be_null(self, name: str) -> bool:
        f = self.fields.get(name)
        return f is not None and (f.nullable or f.is_file) and not f.required


def _field(
    name: str, prop: Mapping[str, Any], components: Mapping[str, Any], required: bool
) -> Field:
    merged = _resolve(prop, components)
    items = _resolve(merged["items"], components) if "items" in merged else None
    schema = {**merged, "items": items} if items else merged
    return Field(
        name=name,
        kinds=_kinds(schema),
        nullable=bool(merged.get("nullable")),
        required=required,
        schema=schema,
    )


def _resolve(schema: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with `$ref` and `allOf` of cog's enums replaced by what they refer to."""
    out = dict(schema)
    for part in [out, *out.pop("allOf", ())]:
        if ref := part.get("$ref"):
            out = {**components[ref.rsplit("/", 1)[-1]], **out}
    out.pop("$ref", None)
    return out


def _kinds(schema: Mapping[str, Any]) -> tuple[Kind, ...]:
    """Return the types that fit: one, or for a union those of each member."""
    if schema.get("type") == "string" and schema.get("format") == "uri":
        return (Kind("file"),)
    if isinstance(schema.get("type"), str):
        items = _kinds(schema["items"]) if schema.get("items") else ()
        return (Kind(schema["type"], items[0].name if len(items) == 1 else None),)
    if isinstance(schema.get("type"), list):
        return tuple(Kind(t) for t in schema["type"] if t != "null")
    members = [k for m in schema.get("anyOf", schema.get("oneOf", ())) for k in _kinds(m)]
    return tuple(dict.fromkeys(m for m in members if m.name != "null")) or ANY


def _validator(name: str, schema: dict[str, Any]) -> Draft202012Validator:
    for engine in PATTERN_ENGINES:
        try:
            # Masked, because messages would otherwise contain the value, however long it is.
            return Draft202012Validator(schema, pattern_options=engine, mask="the value")
        except ValidationError:
            continue
    log.warning("cannot read an input's pattern; only the model checks it", extra={"input": name})
    return Draft202012Validator({k: v for k, v in schema.items() if k != "pattern"})


def _exact(field: Field, value: Json) -> Json:
    """Return the value with every whole number as an int that can be passed on.

    Raises ValueError when a whole number is out of range or may have been rounded.
    """
    if isinstance(value, list):
        return [_exact(field, v) for v in value]
    if isinstance(value, dict):
        return {k: _exact(field, v) for k, v in value.items()}
    if type(value) is float and field.takes_whole_numbers_only and value.is_integer():
        if abs(value) > LARGEST_EXACT_FLOAT:
            raise ValueError(f"must be written without a point or an exponent, got {value}")
        return int(value)
    if type(value) is int and not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        if field.takes_every_number:
            return float(value)
        raise ValueError(
            f"must be from {SMALLEST_INTEGER} to {LARGEST_INTEGER}, got {shown(value)}"
        )
    return value


WORDINGS: Mapping[str, str] = {
    "minimum": "must be at least {limit}, got {got}",
    "maximum": "must be at most {limit}, got {got}",
    "enum": "must be one of {limit}, got {got}",
    "type": "must be of type {types}, got {got}",
    "anyOf": "must be of type {types}, got {got}",
    "minLength": "must have at least {limit} characters, got {length}",
    "maxLength": "must have at most {limit} characters, got {length}",
    "pattern": "must match {limit}, got {got}",
}


def _wording(error: ValidationError, value: Json) -> str:
    template = WORDINGS.get(error.kind.name)
    if template is None:
        return shortened(error.message)
    for step in error.instance_path:  # `error.instance` would copy the value, however long it is
        value = value[step]
    length = len(value) if isinstance(value, str) else 0
    limit = error.kind.value
    if isinstance(limit, float) and limit.is_integer():  # the schema's 20, which became 20.0
        limit = int(limit)
    return template.format(limit=limit, types=_types(error), got=shown(value), length=length)


def _types(error: ValidationError) -> str:
    """Return the types that the schema allows."""
    if error.kind.name == "type":
        return " or ".join(error.kind.value)
    if error.kind.name != "anyOf":
        return ""
    within = [e for member in error.kind.value for e in member if e.kind.name == "type"]
    return " or ".join(dict.fromkeys(_types(e) for e in within)) or "another kind"
