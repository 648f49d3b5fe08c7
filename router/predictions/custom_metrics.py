"""The metrics that a model records itself: how its updates are applied, and how much is kept.

The rules are those of coglet 0.23.1 (`set_metric` in crates/coglet/src/prediction.rs): a dot in
a name makes an object, `increment` adds numbers, `append` makes a list, and null in place of a
value removes it. The size limits are ours: coglet has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.prediction import Json, MetricUpdate

# All metrics of one prediction together, as JSON. Every response, list and webhook contains them.
MAX_BYTES = 64 << 10
MAX_NAMES = 1000
# Deeper than any real metric, and far below the deepest nesting that orjson writes (254).
MAX_DEPTH = 32
INTEGERS = 1 << 64


def size_bytes(value: Json) -> int | None:
    """The size of the value as JSON; None when it is over MAX_BYTES or nested deeper than
    MAX_DEPTH."""
    try:
        size = len(msgspec.json.encode(value))
    except RecursionError:
        return None
    # The order matters: the size is measured in C, so Python code never walks a large value.
    return size if size <= MAX_BYTES and _is_flat_enough(value, MAX_DEPTH) else None


def bounded(metrics: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """The metrics to keep, and the names of those left out: all after the first MAX_NAMES; those
    over a limit of `size_bytes`; then the largest until the others together are at most
    MAX_BYTES."""
    names = list(metrics)
    sizes = {name: size_bytes(metrics[name]) for name in names[:MAX_NAMES]}
    known = [(size, name) for name, size in sizes.items() if size is not None]
    left_out = [name for name, size in sizes.items() if size is None] + names[MAX_NAMES:]
    total = sum(size + len(name) for size, name in known)
    for size, name in sorted(known, reverse=True):
        if total <= MAX_BYTES:
            break
        left_out.append(name)
        total -= size + len(name)
    gone = set(left_out)
    return {name: v for name, v in metrics.items() if name not in gone}, left_out


def apply(metrics: dict[str, Json], update: MetricUpdate) -> None:
    """Apply one update to `metrics` as coglet does. A name with an empty part is ignored."""
    *parents, leaf = update.name.split(".")
    if not leaf or not all(parents):
        return
    holder = metrics
    for name in parents:
        if not isinstance(holder.get(name), dict):
            holder[name] = {}
        holder = holder[name]
    match update.mode:
        case "increment":
            holder[leaf] = _sum(holder.get(leaf, 0), update.value)
        case "append" if isinstance(holder.get(leaf), list):
            holder[leaf] = [*holder[leaf], update.value]
        case "append":
            holder[leaf] = [holder[leaf], update.value] if leaf in holder else [update.value]
        case _ if update.value is None:
            holder.pop(leaf, None)
        case _:
            holder[leaf] = update.value


def _sum(old: Json, value: Json) -> Json:
    """The sum; `old` when either is not a number. Integers wrap around at 64 bits (signed): not
    every reader of JSON reads longer ones."""
    if not (_is_number(old) and _is_number(value)):
        return old
    total: Any = old + value
    if isinstance(total, int):
        return (total + INTEGERS // 2) % INTEGERS - INTEGERS // 2
    return total


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flat_enough(value: Json, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_flat_enough(v, depth - 1) for v in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_flat_enough(v, depth - 1) for v in value)
    return True
