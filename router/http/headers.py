"""Reading a request's headers."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name, given in lower case as ASGI has them; None without one.

    Of the headers that may be read nearly all are absent from a request, and for each of those
    Starlette's mapping raises and catches a KeyError.
    """
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
