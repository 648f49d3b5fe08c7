"""Large files on a cluster go by URL, between the router and the replicas."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs Ray: make test-ray installs ray[serve]")

from tests.e2e.service import Service, running_service
from tests.ray.cluster import RayCluster, application, copy_package, ray_cluster, scaling
from tests.waiting import free_port, wait_until

pytestmark = pytest.mark.slow
NODES = 3
LARGE, VERY_LARGE = 1 << 20, 20 << 20
LIMIT_S = 300.0
ROUTER = """
max_upload_bytes = 50_000_000
[models.copier]
backend = "cog"
[models.copier.remote]
url = ["{}/models/copier", "{}/models/copier"]
files_url = "http://127.0.0.1:{}"
concurrency = 5
"""


class World:
    """Three raylets with a replica each, and the router."""

    def __init__(self, cluster: RayCluster, folder: Path, port: int) -> None:
        self.cluster = cluster
        self.state = folder / "state"
        self._packages, self._port = folder / "none", port
        self._packages.mkdir()
        config = ROUTER.format(*cluster.urls, port)
        (self._packages / "callme.toml").write_text(config)
        self._running = contextlib.ExitStack()

    def start_router(self) -> None:
        """Start it, with what it had stored."""
        argv = [sys.executable, "-m", "uvicorn", "api:app"]
        service = running_service(self._packages, self.state, argv=argv, port=self._port)
        self.router: Service = self._running.enter_context(service)

    def kill_router(self, away_s: float) -> None:
        """kill -9, and start it again after so long."""
        self.router.child.kill()
        self.router.child.wait()
        time.sleep(away_s)
        self.start_router()

    def stop_router(self) -> None:
        """Stop it."""
        self._running.close()

    def submit(self, prediction_id: str, content: bytes, **inputs: Any) -> None:
        """Have a prediction accepted."""
        uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        url = f"{self.router.url}/models/copier/predictions/{prediction_id}"
        body = {"input": {"file": uri, **inputs}}
        answer = httpx.put(url, json=body, headers={"Prefer": "respond-async"}, timeout=60)
        assert answer.status_code == 202, answer.text

    def result(self, prediction_id: str) -> dict[str, Any]:
        """The prediction when it has ended."""

        def ended() -> dict[str, Any] | None:
            with contextlib.suppress(httpx.TransportError):
                url = f"{self.router.url}/predictions/{prediction_id}"
                found = httpx.get(url, timeout=60).json()
                return None if found["status"] in ("starting", "processing") else dict(found)
            return None

        return dict(wait_until(ended, LIMIT_S))

    def check(self, prediction_id: str, content: bytes) -> None:
        """It has given back this file, under a name with the same ending."""
        result = self.result(prediction_id)
        assert result["status"] == "succeeded", str(result)[:2000]
        head, _, text = result["output"]["copy_of"].partition(",")
        assert head == "data:image/png;base64"
        same = hashlib.sha256(base64.b64decode(text)).digest() == hashlib.sha256(content).digest()
        assert same
        assert result["output"]["suffix"] == ".png"

    def through_the_fronts(self, prediction_id: str) -> int:
        """The bytes of the answer of the front that has it."""
        url = f"{self.cluster.url}/models/copier/predictions/{prediction_id}"
        answer = httpx.get(url, timeout=60)
        assert answer.status_code == 200, answer.text
        return len(answer.content)

    def nothing_is_left(self) -> None:
        """No file of a prediction in the spool, and none on the disk of a replica."""
        wait_until(lambda: not self.router.spooled())
        wait_until(lambda: not files_of_replicas())


def files_of_replicas() -> list[Path]:
    """Those in the folders for files of predictions."""
    folder = Path(tempfile.gettempdir())
    return [p for p in folder.glob("callme-copier-*/files/*") if p.is_file()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three replicas."""
    folder, port = tmp_path_factory.mktemp("files"), free_port()
    with ray_cluster(NODES, folder) as cluster:
        made = World(cluster, folder, port)
        copier = application(
            copy_package("copier", folder),
            model={
                "autoscaling_config": scaling(NODES, NODES),
                "ray_actor_options": {"num_gpus": 1, "num_cpus": 0.5},
            },
            files_url=f"http://127.0.0.1:{port}",
        )
        cluster.deploy(copier)
        cluster.wait_running("copier")
        made.start_router()
        try:
            yield made
        finally:
            made.stop_router()


@pytest.mark.parametrize("size", [LARGE, VERY_LARGE])
def test_files_go_by_url(world: World, size: int) -> None:
    """In and out; the fronts see references only, and nothing is left."""
    content = os.urandom(size)
    world.submit(f"size-{size}", content)
    world.check(f"size-{size}", content)
    passed = world.through_the_fronts(f"size-{size}")
    print(f"\n| a file of {size} bytes | answer of {passed} bytes through the front |")
    assert passed < 2000
    world.nothing_is_left()


def test_the_router_is_killed_while_files_are_on_their_way(world: World) -> None:
    """20 predictions with 1 MB and two with 20 MB, the router killed twice: each has its result."""
    sizes = {f"kill-{n}": VERY_LARGE if n % 10 == 5 else LARGE for n in range(20)}
    contents = {prediction_id: os.urandom(size) for prediction_id, size in sizes.items()}
    for prediction_id, content in contents.items():
        world.submit(prediction_id, content, delay_s=0.5)
    began = time.monotonic()
    for away_s in (0.0, 3.0):
        time.sleep(1)
        world.kill_router(away_s)
    for prediction_id, content in contents.items():
        world.check(prediction_id, content)
    print(f"\n| the router killed twice | 20 of 20 in {time.monotonic() - began:.0f} s |")
    world.nothing_is_left()


def test_a_lost_replica_leaves_nothing(world: World) -> None:
    """The prediction runs again elsewhere, and the file of the lost run is gone."""
    content = os.urandom(LARGE)
    world.submit("lost", content, delay_s=5)
    (file,) = wait_until(files_of_replicas, LIMIT_S)
    pid = int(file.parts[-3].split("-")[2])
    assert pid in [p.pid for p in world.cluster.processes("ray::ServeReplica:copier:model")]
    os.kill(pid, signal.SIGKILL)
    world.check("lost", content)
    world.nothing_is_left()  # its successor has deleted what it left


def test_a_cancel_leaves_nothing(world: World) -> None:
    """While it runs."""
    world.submit("canceled", os.urandom(LARGE), delay_s=600)
    wait_until(files_of_replicas, LIMIT_S)
    url = f"{world.router.url}/predictions/canceled/cancel"
    assert httpx.post(url, timeout=60).status_code < 300
    assert world.result("canceled")["status"] == "canceled"
    world.nothing_is_left()


def test_another_address_is_refused(world: World) -> None:
    """Replicas exchange files with the router of serve.yaml alone."""
    body = {"input": {"file": "data:,x"}, "files_url": "http://127.0.0.1:1/v1/remote-files/x?a=b"}
    url = f"{world.cluster.url}/models/copier/predictions"
    answer = httpx.post(url, json=body, timeout=60)
    assert answer.status_code == 501
    assert "files_url" in answer.json()["detail"]
