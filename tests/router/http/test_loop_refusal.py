"""A request that comes back to where it has been is refused."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from router import loop_detection
from router.errors import LoopDetected
from router.http.middleware import LoopDetection
from router.prediction import Prediction

OTHER = "0123456789abcdef"


async def ask(path: str, *via: str) -> httpx.Response:
    """GET it behind the layer; what arrives is what a prediction made there would know."""

    async def arrived(request: Request) -> PlainTextResponse:
        p = Prediction("1", "m", {}, 0.0)
        return PlainTextResponse(f"{p.via}|{loop_detection.onward()}")

    app = Starlette()
    app.add_route("/{path:path}", arrived)
    transport = httpx.ASGITransport(LoopDetection(app))
    headers = [(loop_detection.HEADER, v) for v in via]
    async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
        return await client.get(path, headers=headers)


async def test_what_has_been_elsewhere_is_served() -> None:
    """And says so when it goes on; what is no box's id is not passed on."""
    assert (await ask("/m")).text == f"|{loop_detection.BOX_ID}"
    told = await ask("/m", f"{OTHER}, <script>", "f" * 16)
    assert told.text == f"{OTHER}, {'f' * 16}|{OTHER}, {'f' * 16}, {loop_detection.BOX_ID}"
    assert loop_detection.current() == ""


@pytest.mark.parametrize(
    "via",
    [loop_detection.BOX_ID, f"{OTHER},{loop_detection.BOX_ID}"],
    ids=["alone", "after another"],
)
async def test_what_has_been_here_is_refused_in_the_shape_of_its_api(via: str) -> None:
    """Ours and Cog's; Replicate's are a problem document."""
    for path in ("/m", "/models/m/openapi.json"):
        ours = await ask(path, via)
        assert (ours.status_code, ours.json()["error"]["code"]) == (508, "loop_detected")
    replicates = await ask("/v1/models/a/m", via)
    assert (replicates.status_code, replicates.json()["code"]) == (508, "loop_detected")
    assert replicates.json()["status"] == 508


def test_a_chain_has_an_end() -> None:
    """A header that would grow with each box is a mistake."""
    ids = [f"{n:016x}" for n in range(loop_detection.MAX_HOPS + 1)]
    assert loop_detection.read(",".join(ids[1:])) == ", ".join(ids[1:])
    with pytest.raises(LoopDetected):
        loop_detection.read(",".join(ids))


async def test_work_that_is_begun_for_a_request_keeps_its_way() -> None:
    """To the end, whatever is worked for meanwhile."""

    async def later() -> str:
        await asyncio.sleep(0)
        return loop_detection.current()

    with loop_detection.coming_through(OTHER):
        task = asyncio.create_task(later())
        with loop_detection.coming_through(""):
            assert await later() == ""
    assert (await task, loop_detection.current()) == (OTHER, "")
