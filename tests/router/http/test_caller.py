"""Who has been let in: whose predictions a handler may show."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.errors import RouterError
from router.http.auth import AuthMiddleware, admin_only, caller_of
from router.http.body_timeout import BodyReads
from router.http.errors import on_router_error
from router.keys.key import FixedKeys, Key, parse_keys, verifier_of
from router.shutdown import Shutdown
from tests.router.http.guarded import client, signed

WEB, SECOND, OPS, LOCAL = ("w" * 32, "x" * 32, "o" * 32, "l" * 32)
KEYS = (
    *parse_keys([f"web:{WEB}", f"web2@web:{SECOND}"]),
    *parse_keys([f"ops:{OPS}"], is_admin=True),
    Key("local", verifier_of(LOCAL), local=True, is_admin=True),
)


def application(*keys: Key) -> AuthMiddleware:
    """Each path answers who asks; /status is for admins."""

    async def who(request: Request) -> Response:
        caller = caller_of(request)
        return JSONResponse([caller.owner, caller.is_admin])

    app = Starlette(exception_handlers={RouterError: on_router_error})
    app.add_route("/predictions/{id}", who, methods=["GET"])
    app.add_route("/status", admin_only(who), methods=["GET"])
    app.add_route("/health", who, methods=["GET"])
    app.add_route("/v1/streams/{id}", who, methods=["GET"])
    return AuthMiddleware(app, FixedKeys(keys), 1 << 20, BodyReads(Shutdown()))


def bearer(key: str) -> dict[str, str]:
    """The header with a key."""
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        (bearer(WEB), ["web", False]),
        (bearer(SECOND), ["web", False]),
        (bearer(OPS), ["ops", True]),
        (bearer(LOCAL), ["local", True]),
    ],
)
async def test_a_key_is_its_holders(headers: dict[str, str], caller: list[object]) -> None:
    """Sent or signed with; an admin's path is for admins."""
    async with client(application(*KEYS)) as http:
        assert (await http.get("/predictions/a", headers=headers)).json() == caller
        status = (await http.get("/status", headers=headers)).status_code
        assert status == (200 if caller[1] else 403)


async def test_a_signature_is_its_holders() -> None:
    """As if the key had been sent."""
    async with client(application(*KEYS)) as http:
        for key, caller in ((SECOND, ["web", False]), (OPS, ["ops", True])):
            headers = signed("GET", "/predictions/a", key=key)
            assert (await http.get("/predictions/a", headers=headers)).json() == caller


async def test_without_keys_this_machine_is_the_admin() -> None:
    """There is nobody to be kept apart from."""
    async with client(application()) as http:
        for path in ("/predictions/a", "/status"):
            assert (await http.get(path)).json() == ["", True]


async def test_a_path_without_a_key_is_nobodys() -> None:
    """A handler there that asks who calls is refused, rather than taken for an admin's."""
    async with client(application(*KEYS)) as http:
        answers: list[httpx.Response] = [
            await http.get("/health"),
            await http.get("/v1/streams/a", headers=bearer(OPS)),
        ]
    assert [answer.status_code for answer in answers] == [401, 401]
