"""Many users at the same time: none of their runs is lost, and none is seen by another."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from box import Answer, Received
from postgres import Database

pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from supabase_project import PUBLIC_KEY, token_of
from test_predictions import App, running_app

# bench/supabase_load.py takes 200.
USERS = 100
ENDED = {"succeeded", "failed", "canceled"}
LIMIT_S = 240


@dataclass
class User:
    """One page of one user. `heard`: the predictions that Realtime told of; `rows`: what the
    REST API shows at the end; `listed`: the files that Storage shows."""

    name: str
    heard: list[dict[str, Any]] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)

    took_s: float = 0

    async def live(self, app: App, http: aiohttp.ClientSession) -> None:
        """Join Realtime, upload a file, run a model with it, and read everything at the end."""
        url, token = app.project.url, token_of(self.name)
        headers = {"apikey": PUBLIC_KEY, "Authorization": f"Bearer {token}"}
        file = f"callme-inputs/{self.name}/sound.wav"
        topic = f"realtime:callme:user:{self.name}"
        join = {"config": {"private": True}, "access_token": token}
        async with http.ws_connect(f"{url}/realtime/v1/websocket?vsn=2.0.0", headers=headers) as ws:
            await ws.send_json(["1", "1", topic, "phx_join", join])
            reply = await ws.receive_json()
            assert reply[4]["status"] == "ok", reply
            upload = f"{url}/storage/v1/object/{file}"
            async with http.post(upload, data=self.name.encode(), headers=headers) as put:
                assert put.status == 200, await put.text()
            body = {"model": "echo", "input": {"audio": f"storage://{file}"}, "key": "k"}
            # Twice at the same time, as a page does that is loaded again.
            twice = [self._make(http, app, body, headers) for _ in range(2)]
            began = time.monotonic()
            self.made, again = await asyncio.gather(*twice)
            assert self.made["id"] == again["id"]
            while not self.heard or self.heard[-1]["status"] not in ENDED:
                self.heard.append((await ws.receive_json())[4]["payload"])
            self.took_s = time.monotonic() - began
        profile = {**headers, "Accept-Profile": "callme"}
        async with http.get(f"{url}/rest/v1/predictions", headers=profile) as rows:
            self.rows = await rows.json()
        listing = f"{url}/storage/v1/object/list/callme-inputs"
        async with http.post(listing, json={"prefix": ""}, headers=headers) as listed:
            self.listed = await listed.json()

    async def _make(
        self, http: aiohttp.ClientSession, app: App, body: Any, headers: dict[str, str]
    ) -> dict[str, Any]:
        async with http.post(f"{app.predictions.url}/predictions", json=body, headers=headers) as r:
            assert r.status in (200, 201), await r.text()
            made: dict[str, Any] = await r.json()
            return made


async def crowd(app: App, users: list[User]) -> None:
    """All of them at the same time."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        await asyncio.gather(*(user.live(app, http) for user in users))


def reporting_box(app: App, pool: ThreadPoolExecutor) -> None:
    """A box that takes every prediction, and reports about it: the end first, then the beginning,
    and the end again. The result is the user's own name."""

    def report(body: dict[str, Any]) -> None:
        name = body["id"]
        user = body["input"]["audio"].split("/callme-inputs/")[1].split("/")[0]
        end = {"id": name, "status": "succeeded", "at": 2, "output": {"of": user}}
        for event in (end, {"id": name, "status": "processing", "at": 1}, end):
            app.report(event, url=body["webhook"])

    def take(received: Received) -> Answer:
        if received.method == "PUT":
            pool.submit(report, json.loads(received.body))
        return Answer(202, b"{}")

    app.box.behaviour = take


def run_crowd(database: Database, count: int) -> list[User]:
    """So many users at the same time. Raises AssertionError when one's run is lost, or when one
    sees something of another."""
    database.clear()
    users = [User(str(uuid.uuid4())) for _ in range(count)]
    values = ", ".join(f"('{user.name}')" for user in users)
    database.run(f"insert into auth.users (id) values {values}")
    with running_app(database) as app, ThreadPoolExecutor(8) as pool:
        reporting_box(app, pool)
        asyncio.run(crowd(app, users))
        assert len(app.project.rows()) == count
    for user in users:
        assert [row["id"] for row in user.rows] == [user.made["id"]]
        assert user.rows[0]["status"] == "succeeded"
        assert user.rows[0]["output"] == {"of": user.name}
        assert {said["prediction"] for said in user.heard} == {user.made["id"]}
        assert [file["name"] for file in user.listed] == [f"{user.name}/sound.wav"]
    return users


@pytest.mark.timeout(LIMIT_S + 60)
def test_many_users_at_once(cluster: Database) -> None:
    """Each sees its own run, result, messages and file, and nothing else."""
    run_crowd(cluster, USERS)
