"""Packages on a real Ray cluster of three raylets: what callers get, scaling, an update."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="needs Ray: make test-ray installs ray[serve]")

from tests.ray.cluster import (
    Load,
    RayCluster,
    application,
    copy_package,
    predict,
    ray_cluster,
    scaling,
    session,
    until,
)

pytestmark = pytest.mark.slow
NODES = 3


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies: two of echo, and poet, which streams."""
    folder = tmp_path_factory.mktemp("packages")
    for name, called in (("echo", "echo"), ("echo", "other"), ("poet", "poet")):
        copy_package(name, folder, called)
    return folder


def applications(packages: Path) -> list[dict[str, Any]]:
    """echo on a GPU, none to three replicas; the others on none."""
    free = {"num_gpus": 0, "num_cpus": 0.5}
    return [
        application(
            packages / "echo",
            model={
                "autoscaling_config": scaling(0, NODES),
                "ray_actor_options": {"num_gpus": 1, "num_cpus": 0.5},
            },
        ),
        *(
            application(
                packages / name,
                model={"autoscaling_config": scaling(1, 1), "ray_actor_options": free},
            )
            for name in ("other", "poet")
        ),
    ]


@pytest.fixture(scope="module")
def cluster(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Three raylets with these applications."""
    with ray_cluster(NODES, tmp_path_factory.mktemp("ray")) as started:
        began = time.monotonic()
        started.deploy(*applications(packages))
        started.wait_running("echo", "other", "poet")
        print(f"\nthree applications deployed in {time.monotonic() - began:.1f} s")
        yield started


async def test_cogs_api(cluster: RayCluster) -> None:
    """Health, schema, 422, a file of 1 MB, a failure, and what must not reach coglet."""
    url = f"{cluster.url}/models/other"
    async with session() as http:
        async with http.get(f"{url}/health-check") as answer:
            assert (await answer.json())["status"] == "READY"
        async with http.get(f"{url}/openapi.json") as answer:
            schema = await answer.json()
            assert "number" in schema["components"]["schemas"]["Input"]["properties"]
        status, result = await predict(http, url, text="hi", number=0.25)
        assert (status, result["output"]["text"], result["output"]["number"]) == (200, "hi", 0.25)
        content = os.urandom(1 << 20)
        uri = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
        status, result = await predict(http, url, file=uri)
        assert result["output"]["file_sha256"] == hashlib.sha256(content).hexdigest()
        status, result = await predict(http, url, number=2)
        assert (status, result["detail"][0]["loc"]) == (422, ["body", "input", "number"])
        for bad in ({"file": "file:///etc/passwd"}, {"file": "/etc/passwd"}):
            assert (await predict(http, url, **bad))[0] == 422
        status, result = await predict(http, url, mode="raise")
        assert (status, result["status"]) == (200, "failed")
        for path in ("trainings", "shutdown", "predictions/a.b/cancel"):
            async with http.post(f"{url}/{path}", json={"input": {}}) as answer:
                assert answer.status == 404
        async with http.put(f"{url}/predictions/mine", json={"input": {}}) as answer:
            assert (await answer.json())["id"] == "mine"
        async with http.get(f"{url}/predictions/mine") as answer:
            assert (await answer.json())["status"] == "succeeded"


async def test_cancels(cluster: RayCluster) -> None:
    """One that runs, one that waits for its replica, and one whose caller hangs up; then the place
    is free."""
    url = f"{cluster.url}/models/other"
    async with session() as http:
        first = asyncio.create_task(predict(http, url, "first", delay_s=600))
        await known(http, url, "first")
        second = asyncio.create_task(predict(http, url, "second", delay_s=600))
        await known(http, url, "second")
        for prediction_id, sent in (("second", second), ("first", first)):
            async with http.post(f"{url}/predictions/{prediction_id}/cancel") as answer:
                assert answer.status == 200
            assert (await sent)[1]["status"] == "canceled"
        async with http.post(f"{url}/predictions/first/cancel") as answer:
            assert answer.status == 404
        gone = asyncio.create_task(predict(http, url, "gone", delay_s=600))
        await known(http, url, "gone")
        gone.cancel()
        status, result = await predict(http, url, text="after")
        assert (status, result["output"]["text"]) == (200, "after")


async def known(http: Any, url: str, prediction_id: str) -> None:
    """Wait until a front has the prediction."""
    for _ in range(600):
        async with http.get(f"{url}/predictions/{prediction_id}") as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.1)
    raise AssertionError(prediction_id)


async def test_streams(cluster: RayCluster) -> None:
    """Word by word, and a stream can be canceled."""
    url = f"{cluster.url}/models/poet/predictions/poem"
    events: list[tuple[str, Any]] = []
    name = ""
    async with session() as http:
        body = {"input": {"text": "a b c d e f g h i j", "delay_s": 1}}
        headers = {"Accept": "text/event-stream"}
        async with http.put(url, json=body, headers=headers) as answer:
            assert answer.content_type == "text/event-stream"
            async for line in answer.content:
                if line.startswith(b"event:"):
                    name = line[6:].strip().decode()
                elif line.startswith(b"data:"):
                    events.append((name, json.loads(line[5:])))
                    if name == "output" and len([e for e, _ in events if e == "output"]) == 2:
                        async with http.post(f"{url}/cancel") as canceled:
                            assert canceled.status == 200
    assert events[-1][0] == "completed"
    assert events[-1][1]["status"] == "canceled"
    assert 2 <= len([e for e, _ in events if e == "output"]) < 10


async def test_from_none_to_three_and_back(cluster: RayCluster) -> None:
    """32 clients: three replicas answer, nobody is refused; without them none is left."""
    await until(lambda: not cluster.replicas("echo"))
    async with Load(f"{cluster.url}/models/echo", 32, delay_s=0.5) as load:
        await until(lambda: len(load.pids) >= NODES)
    assert load.refused == []
    began = time.monotonic()
    counts = [(0.0, NODES)]

    def none_left() -> bool:
        now = len(cluster.replicas("echo"))
        if now != counts[-1][1]:
            counts.append((round(time.monotonic() - began, 1), now))
        return now == 0

    await until(none_left)
    print(f"\n{load.answered} answered, replicas after {list(load.pids.values())} s,")
    print(f"slowest {load.slowest_s:.1f} s; down (seconds, replicas): {counts}")


async def test_an_update_drops_nothing(cluster: RayCluster, packages: Path) -> None:
    """New source of echo: its old replica ends what it runs, every request is answered, and the
    other application goes on with the same process."""
    async with session() as http:
        _, before = await predict(http, f"{cluster.url}/models/other")
        source = packages / "echo" / "run.py"
        source.write_text(source.read_text().replace("text=text,", 'text=f"new {text}",'))
        async with Load(f"{cluster.url}/models/echo", 4, delay_s=0.3, text="x") as load:
            await until(lambda: load.answered >= 4)
            began = time.monotonic()
            await asyncio.to_thread(cluster.deploy, *applications(packages))
            while True:
                _, result = await predict(http, f"{cluster.url}/models/echo", text="x")
                if result["output"]["text"] == "new x":
                    break
                assert time.monotonic() - began < 120
            await asyncio.to_thread(cluster.wait_running, "echo")
        print(f"\nupdated in {time.monotonic() - began:.1f} s under load,")
        print(f"{load.answered} answered, slowest {load.slowest_s:.1f} s")
        assert load.refused == []
        _, after = await predict(http, f"{cluster.url}/models/other")
        assert after["output"]["pid"] == before["output"]["pid"]
