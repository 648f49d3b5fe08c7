"""Each API has one shape of errors, whichever layer answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from router import loop_detection
from router.app import create_app
from router.settings import Settings

KEY = "0123456789abcdef0123456789abcdef"
BEARER = {"authorization": f"Bearer {KEY}"}
# One path of each API: the app's, Cog's, Replicate's.
PATHS = ("/predictions/x", "/models/m/predictions/x", "/v1/predictions/x")


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The whole application, its lifespan not begun: a handler that needs it fails as a bug does.
    The key may make one request a minute more than these tests do with it."""
    keys = (SecretStr(f"team:{KEY}"), SecretStr("busy:another-key-of-16-chars"))
    settings = Settings(packages_dir=tmp_path, state_dir=tmp_path / "state", keys=keys)
    transport = httpx.ASGITransport(create_app(settings), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def error_of(path: str, answer: httpx.Response) -> tuple[str, str]:
    """The code and the message, once the answer has been seen to be of the path's shape."""
    body: dict[str, Any] = answer.json()
    if path.startswith("/v1"):
        assert body["status"] == answer.status_code
        assert body["title"]
        assert body.keys() <= {"title", "detail", "status", "code", "invalid_fields"}
        return body["code"], body["detail"]
    assert body.keys() == {"error"}
    return body["error"]["code"], body["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_layer_answers_in_the_shape_of_the_path(
    box: httpx.AsyncClient, path: str
) -> None:
    """Without a key, after a loop of boxes, with a wrong method, on no path, and after a bug."""
    cases: tuple[tuple[str, str, dict[str, str], int, str], ...] = (
        ("GET", path, {}, 401, "unauthorized"),
        ("GET", path, {"authorization": "Bearer wrong"}, 401, "unauthorized"),
        (
            "GET",
            path,
            {**BEARER, loop_detection.HEADER: loop_detection.BOX_ID},
            508,
            "loop_detected",
        ),
        ("TRACE", path, BEARER, 405, "method_not_allowed"),
        ("GET", f"{path}/no/such/path", BEARER, 404, "not_found"),
        ("GET", path, BEARER, 500, "internal_error"),
    )
    for method, url, headers, status, code in cases:
        answer = await box.request(method, url, headers=headers)
        assert answer.status_code == status, (method, url)
        assert error_of(path, answer)[0] == code
        assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("path", PATHS)
async def test_a_box_without_a_key(tmp_path: Path, path: str) -> None:
    """403 for other machines, in the shape of the path."""
    app = create_app(Settings(packages_dir=tmp_path, state_dir=tmp_path / "state"))
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get(path)
    assert answer.status_code == 403
    assert error_of(path, answer)[0] == "forbidden"


async def test_a_limit_of_a_key(tmp_path: Path) -> None:
    """429 with when to come again, in the shape of the path."""
    settings = Settings(
        packages_dir=tmp_path,
        state_dir=tmp_path / "state",
        keys=(SecretStr(f"team:{KEY}"),),
        requests_per_minute=1,
    )
    for path in PATHS:
        transport = httpx.ASGITransport(create_app(settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await client.get(path, headers=BEARER)
            over = await client.get(path, headers=BEARER)
        assert over.status_code == 429
        assert error_of(path, over)[0] == "rate_limited"
        assert int(over.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "advice"),
    [
        ("POST", "/v1/v1/predictions", "leave it out"),
        ("GET", "/v1/v1/models/a/b", "leave it out"),
        ("POST", "/v1/v1/files", "leave it out"),
        ("GET", "/account", "end with /v1"),
        ("POST", "/models/a/b/predictions", "end with /v1"),
        ("GET", "/models/a/b", "end with /v1"),
        ("GET", "/no/such/path", ""),
    ],
)
async def test_a_base_url_with_v1_twice_or_without_it(
    box: httpx.AsyncClient, method: str, path: str, advice: str
) -> None:
    """Some of Replicate's clients add /v1 themselves and some do not: the answer says what to
    do; a path that is in no API gets no such advice."""
    answer = await box.request(method, path, headers=BEARER)
    assert answer.status_code in (404, 405)
    message = error_of(path, answer)[1]
    assert advice in message
    assert bool(advice) == ("base URL" in message)
