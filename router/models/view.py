"""A package's view.json: what a page shows first of inputs and outputs. docs/view-json.md has it.

Every part is optional. Without the file, or with a wrong one, the shape of the output decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

MAX_BYTES = 64 << 10


class Headline(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One value to see first. `at`: its JSON Pointer in the output. `unit` follows the value."""

    at: str
    label: str = ""
    unit: str = ""


class Track(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A list of intervals. `at`: its JSON Pointer in the output. `from` and `to`: the members of
    each item that have its times in s; `text`: the member to write into the interval."""

    at: str
    from_: str = msgspec.field(name="from", default="start")
    to: str = "end"
    label: str = ""
    text: str = ""


class Compare(msgspec.Struct, forbid_unknown_fields=True):
    """A picture of the output (`at`, a JSON Pointer) over one of the inputs (`with`, its name)."""

    at: str
    with_: str = msgspec.field(name="with")


class View(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`about`: a sentence for people. `first`: inputs to show unfolded, in this order. `draw` and
    `record`: inputs that can be drawn or recorded. `hide`: outputs that repeat others."""

    about: str = ""
    headline: list[Headline] = []
    timeline: list[Track] = []
    compare: Compare | None = None
    first: list[str] = []
    draw: list[str] = []
    record: list[str] = []
    hide: list[str] = []


class ViewError(Exception):
    """The view.json cannot be used. The message says why."""


def read_view(folder: Path) -> Mapping[str, Any]:
    """Return the view.json of a package, checked; {} when it has none.

    Raises ViewError when it cannot be read or has something that is not known.
    """
    try:
        with (folder / "view.json").open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ViewError(error.strerror) from error
    if len(text) > MAX_BYTES:
        raise ViewError(f"it is longer than {MAX_BYTES >> 10} KiB")
    try:
        view = msgspec.json.decode(text, type=View)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ViewError(str(error)) from error
    built: Mapping[str, Any] = orjson.loads(msgspec.json.encode(view))
    # What is left out has its meaning in the page, too; `timeline` alone needs its defaults.
    tracks = [{"from": t.from_, "to": t.to, **d} for t, d in _pairs(view, built)]
    return {**built, "timeline": tracks} if tracks else built


def _pairs(view: View, built: Mapping[str, Any]) -> Iterator[tuple[Track, Mapping[str, Any]]]:
    return zip(view.timeline, built.get("timeline", ()), strict=True)


def wrong_names(view: Mapping[str, Any], schema: Mapping[str, Any]) -> Sequence[str]:
    """Return what the view names and the model's schema lacks, one sentence each.

    `schema`: the model's OpenAPI document. Only the first step of a pointer can be checked, because
    Cog does not describe what is inside of an output's members.
    """
    components = schema.get("components", {}).get("schemas", {})
    inputs = components.get("Input", {}).get("properties", {})
    outputs = components.get("Output", {}).get("properties")
    compared = view.get("compare")
    named = [*view.get("first", ()), *view.get("draw", ()), *view.get("record", ())]
    named += [compared["with"]] if compared else []
    problems = [f"view.json: there is no input '{n}'" for n in named if n not in inputs]
    pointers = [e["at"] for k in ("headline", "timeline") for e in view.get(k, ())]
    pointers += [*view.get("hide", ()), *([compared["at"]] if compared else ())]
    for pointer in pointers:
        step = pointer.split("/")[1] if pointer.startswith("/") else None
        if step is None:
            problems.append(f"view.json: '{pointer}' is no JSON Pointer, such as /score")
        elif outputs is not None and step not in outputs:
            problems.append(f"view.json: there is no output '{step}'")
    return problems
