"""`callme usage`: who has used which model how much."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from router.cli.client import (
    KeyOption,
    RefusedError,
    RouterClient,
    Target,
    UnreachableError,
    Url,
    fail_refused,
    fail_unreachable,
    find_router,
)
from router.cli.common import Json, console, print_json, read_settings
from router.predictions.usage import DEFAULT_DAYS, KEPT_DAYS

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def add_commands(app: typer.Typer) -> None:
    """Add `usage`."""
    app.command()(usage)


def usage(
    *,
    days: Annotated[
        int, typer.Option("--days", "-d", min=1, max=KEPT_DAYS, help="Today and the days before.")
    ] = DEFAULT_DAYS,
    daily: Annotated[bool, typer.Option("--daily", help="A row for each day.")] = False,
    url: Url = None,
    key: KeyOption = None,
    as_json: Json = False,
) -> None:
    """Show who has used which model how much, and what Replicate would have asked for it."""
    target = find_router(read_settings(), url, key)
    try:
        found = asyncio.run(_get(target, f"/usage?days={days}"))
    except UnreachableError as error:
        fail_unreachable(error)
    except RefusedError as error:
        fail_refused(error, as_json)
    if as_json:
        print_json(found)
        return
    if not found["rows"]:
        console.print(f"Nothing has run since {found['since']}.")
        return
    rows = {(r["day"] if daily else "", r["key"], r["model"]): r for r in found["rows"]}
    if not daily:
        rows = summed(found["rows"])
    first = ("day",) if daily else ()
    # At most 80 columns, for short names. --json has everything.
    table = Table(*first, "key", "model", "runs", "failed", "run s", "in", "out", "≈ $", box=None)
    for (day, owner, model), row in rows.items():
        table.add_row(*((day,) if daily else ()), owner or "-", model, *_cells(row))
    if len(rows) > 1:
        table.add_row(*(("",) if daily else ()), "total", "", *_cells(found["total"]))
    console.print(table)
    price = found["replicate_estimate"]
    if price["usd_per_s"] is None:
        console.print(
            f"No price is known for {price['hardware']}: set [replicate_prices] in callme.toml.",
            soft_wrap=True,
        )
    else:
        console.print(
            f"≈ $: an estimate of the same seconds on Replicate, at {price['usd_per_s']:g} $ a "
            f"second for {price['hardware']}.",
            soft_wrap=True,
        )


def summed(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """One row for each key and model: the sums of all days."""
    sums: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        known = sums.setdefault(("", row["key"], row["model"]), {})
        for name, value in row.items():
            if isinstance(value, int | float):
                known[name] = known.get(name, 0) + value
    return dict(sorted(sums.items()))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    dollars = row.get("replicate_usd_estimate")
    return (
        str(row["predictions"]),
        str(row["failed"]),
        f"{row['run_s']:.1f}",
        size(row["input_bytes"]),
        size(row["output_bytes"]),
        "-" if dollars is None else _dollars(dollars),
    )


def _dollars(value: float) -> str:
    return "<0.01" if 0 < value < 0.01 else f"{value:.2f}"


def size(n: float) -> str:
    """A number of bytes in the unit that makes it shortest.

    >>> size(999), size(3 << 20), size(2500 << 30)
    ('999 B', '3.0 MiB', '2.4 TiB')
    """
    for unit in UNITS[:-1]:
        if n < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} {UNITS[-1]}"


async def _get(target: Target, path: str) -> Any:
    async with RouterClient(target) as router:
        return await router.get(path)
