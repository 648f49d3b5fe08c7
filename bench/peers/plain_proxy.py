"""The plainest thing that could stand before coglet: FastAPI, aiohttp, one lock. It validates
nothing, records nothing and starts nothing. `COGLET_URL` names the server."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Request, Response, UploadFile

UPSTREAM = os.environ["COGLET_URL"] + "/predictions"
lock = asyncio.Lock()
session: aiohttp.ClientSession


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One session for all requests."""
    global session  # noqa: PLW0603 - the plainest thing
    session = aiohttp.ClientSession()
    yield
    await session.close()


app = FastAPI(lifespan=lifespan)


async def forward(body: bytes) -> Response:
    """One at a time, again while coglet's slot is not free."""
    async with lock:
        while True:
            async with session.post(
                UPSTREAM, data=body, headers={"Content-Type": "application/json"}
            ) as r:
                if r.status != 409:
                    return Response(await r.read(), r.status, media_type="application/json")
            await asyncio.sleep(0.001)


@app.post("/predictions")
async def predictions(request: Request) -> Response:
    """JSON as it comes."""
    return await forward(await request.body())


@app.post("/upload")
async def upload(file: UploadFile) -> Response:
    """A file as a data URI, which is what coglet takes."""
    data = base64.b64encode(await file.read()).decode()
    return await forward(b'{"input":{"file":"data:;base64,' + data.encode() + b'"}}')
