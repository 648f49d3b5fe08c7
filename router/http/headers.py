"""Reading a request's headers."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that name, or None. `name` is in lower case, as ASGI has it.

    Most of the headers that the router looks for are absent from a request, and Starlette's
    mapping raises and catches a KeyError for each absent one.
    """
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
