"""Who is asking: every handler that shows or changes what somebody has made needs to know."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from router.domain.caller import Caller
from router.domain.errors import Forbidden, Unauthorized

CALLER = "callme_caller"
Handler = Callable[[Request], Awaitable[Response]]


def set_caller(scope: Scope, caller: Caller) -> None:
    """Note who has been let in."""
    scope[CALLER] = caller


def caller_of(request: Request) -> Caller:
    """Who has been let in. Raises Unauthorized on a path that nobody needs a key for: what is
    reached there belongs to nobody."""
    caller: Caller | None = request.scope.get(CALLER)
    if caller is None:
        raise Unauthorized("Cannot serve this without a key")
    return caller


def admin_only(handler: Handler) -> Handler:
    """A handler that shows what concerns every holder of a key. Raises Forbidden for the others."""

    @functools.wraps(handler)
    async def wrapped(request: Request) -> Response:
        if not caller_of(request).is_admin:
            raise Forbidden(
                "Cannot show this: it needs an admin key (callme keys create NAME --admin)"
            )
        return await handler(request)

    return wrapped
