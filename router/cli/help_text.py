"""How `--help` shows options and arguments: by name, without Python's types.

typer shows `<list[str]>`, `<int range>` and, for a flag, `<bool>`, and has no setting for it.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperOption


def without_types() -> None:
    """Show `--port PORT`, and nothing beside a flag or an argument."""

    def of_option(option: TyperOption, ctx: Any) -> str | None:
        if option.is_flag or option.name == "help":
            return None
        return option.metavar or str(option.opts[0]).lstrip("-").upper().replace("-", "_")

    def of_argument(argument: TyperArgument, ctx: Any) -> str | None:
        return None

    TyperOption.display_type_rich = of_option  # type: ignore[assignment, method-assign]
    TyperArgument.display_type_rich = of_argument  # type: ignore[assignment, method-assign]
