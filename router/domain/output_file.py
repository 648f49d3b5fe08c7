"""Files in a prediction's output: where they are in it, and how they are taken out and put back.

A model's server gives each file as a data: URI. In the store they would make every row as large as
its pictures, so they are kept as files: the output has a hole (null) in each one's place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from router.domain.media_types import MEDIA_TYPE
from router.domain.prediction import Json, Place

DATA_URI = re.compile(rf"data:(?P<type>{MEDIA_TYPE.pattern})?;base64,", re.ASCII)


def may_hold_files(output: Json) -> bool:
    """False when there is certainly no data: URI in the output. For most outputs this is all that
    is ever asked, and a walk in Python through a long list would hold the event loop."""
    if isinstance(output, str):
        return output.startswith("data:")
    if not isinstance(output, list | dict):
        return False
    for value in output if isinstance(output, list) else output.values():
        if isinstance(value, str) and value.startswith("data:"):
            return True  # without a copy of what may be a hundred pictures
    try:
        return b'"data:' in orjson.dumps(output, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # nested deeper than orjson writes
        return False


def data_uris(output: Json) -> Iterator[tuple[Place, str]]:
    """Every string of the output that begins as a data: URI in base64, in order."""
    waiting: list[tuple[Place, Json]] = [((), output)]
    while waiting:  # no recursion: how deep an output is nested is the model's choice
        place, value = waiting.pop()
        if isinstance(value, str):
            if DATA_URI.match(value):
                yield place, value
        elif isinstance(value, list):
            waiting += [((*place, i), v) for i, v in enumerate(value)][::-1]
        elif isinstance(value, dict):
            waiting += [((*place, k), v) for k, v in value.items()][::-1]


def with_values(output: Json, values: Iterable[tuple[Place, Json]]) -> Json:
    """A copy of the output that has these values in these places."""
    root: dict[str, Any] = {"": output}
    copies: dict[Place, Any] = {}
    for place, value in values:
        holder, key = root, ""
        for depth, step in enumerate(place):
            above = place[:depth]
            if above not in copies:
                copies[above] = holder[key] = holder[key].copy()
            holder, key = copies[above], step  # type: ignore[assignment]
        holder[key] = value
    return root[""]
