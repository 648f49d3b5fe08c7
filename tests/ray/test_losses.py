"""500 asynchronous predictions through the router, while a part of the cluster is killed.

Ray may run a prediction twice; the router stores one result for each. How many ran twice is
printed: the echo package writes a line to a journal at the end of each run.
"""

from __future__ import annotations

import collections
import contextlib
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytest.importorskip("ray.serve", reason="needs Ray: make test-ray installs ray[serve]")

from tests.e2e.service import Service, kill, running_service
from tests.ray.cluster import RayCluster, application, copy_package, ray_cluster, scaling
from tests.waiting import free_port, wait_until

pytestmark = pytest.mark.slow
NODES = 3
PREDICTIONS = 500
KILL_AFTER = 100  # results
LIMIT_S = 600.0
ROUTER = """
[models.echo]
backend = "cog"
queue_limit = 1000
[models.echo.remote]
url = ["{}/models/echo", "{}/models/echo"]
concurrency = 6
"""
ENDED = ("succeeded", "failed", "canceled")


class World:
    """A cluster that serves echo with a replica on each node, and the router in front of it."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.cluster = cluster
        self.journal = folder / "journal"
        self._packages, self._state, self._port = folder / "none", folder / "state", free_port()
        self._packages.mkdir()
        (self._packages / "callme.toml").write_text(ROUTER.format(*cluster.urls))
        self._running = contextlib.ExitStack()

    def start_router(self) -> None:
        """Start it, with what it had stored if it ran before."""
        argv = [sys.executable, "-m", "uvicorn", "api:app"]
        service = running_service(self._packages, self._state, argv=argv, port=self._port)
        self.router: Service = self._running.enter_context(service)

    def stop_router(self) -> None:
        """Stop it."""
        self._running.close()

    def kill_router(self) -> None:
        """kill -9, and start it again."""
        self.router.child.kill()
        self.router.child.wait()
        self.start_router()

    def kill_replica(self) -> None:
        """One of the three."""
        kill([self.cluster.processes("ray::ServeReplica:echo:model")[0]])

    def kill_worker(self) -> None:
        """The process of a model: below the server of a replica."""
        replica = self.cluster.processes("ray::ServeReplica:echo:model")[0]
        server = next(p for p in replica.children(True) if "cog.server.http" in p.cmdline())
        kill(p for p in server.children() if p.name() != "sh")  # that one watches over the server

    def kill_gpu_node(self) -> None:
        """The one without a front, and start another."""
        self.cluster.kill_node(self.cluster.nodes[2])
        self.cluster.nodes.append(self.cluster.add_node())

    def kill_front_node(self) -> None:
        """A node with an entry, a front and a replica, and start another."""
        port = int(self.cluster.urls[1].rpartition(":")[2])
        self.cluster.kill_node(self.cluster.nodes[1])
        self.cluster.nodes.insert(1, self.cluster.add_node(port))

    def kill_all_of_serve(self) -> None:
        """Every entry, the controller and both fronts at once. Ray starts them again."""
        titles = ("ray::ProxyActor", "ray::ServeController", "ray::ServeReplica:echo:front")
        kill([p for title in titles for p in self.cluster.processes(title)])

    def kill_gcs(self) -> None:
        """The cluster's memory, for 8 s."""
        self.cluster.pause_gcs(8)

    # ---- predictions -----------------------------------------------------------------------

    def submit(self, prediction_id: str) -> None:
        """Until it is accepted, as a client does that knows its id."""
        url = f"{self.router.url}/models/echo/predictions/{prediction_id}"
        body = {"input": {"text": prediction_id, "delay_s": 0.2}}

        def accepted() -> bool:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.put(url, json=body, headers={"Prefer": "respond-async"}, timeout=60)
                assert answer.status_code in (200, 202, 429, 503), answer.text
                return answer.status_code in (200, 202)
            return False

        wait_until(accepted, LIMIT_S)

    def stored(self, name: str) -> list[tuple[str, str]]:
        """Id and status of each prediction of this drill in the store."""
        path = self._state / "predictions.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            query = "SELECT id, status FROM predictions WHERE id LIKE ?"
            return store.execute(query, (f"{name}-%",)).fetchall()

    def ended(self, name: str) -> int:
        """How many have a result."""
        return sum(1 for _, status in self.stored(name) if status in ENDED)

    def results(self, name: str) -> list[dict[str, Any]]:
        """All, as a client gets them."""
        with httpx.Client(base_url=self.router.url, timeout=60) as http:
            ids = (f"{name}-{n}" for n in range(PREDICTIONS))
            return [http.get(f"/predictions/{prediction_id}").json() for prediction_id in ids]

    def runs(self, name: str) -> collections.Counter[str]:
        """How often each prediction of this drill ran to its end."""
        lines = self.journal.read_text().splitlines()
        return collections.Counter(line for line in lines if line.startswith(f"{name}-"))

    def wait_whole(self) -> None:
        """Until each node has its replica again."""

        def whole() -> bool:
            with contextlib.suppress(Exception):  # while the controller starts
                replicas, fronts = (self.cluster.replicas("echo", d) for d in ("model", "front"))
                return len(replicas) == NODES and len(fronts) == len(self.cluster.urls)
            return False

        wait_until(whole, LIMIT_S)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three raylets, two entries, one router."""
    folder = tmp_path_factory.mktemp("losses")
    with ray_cluster(NODES, folder) as cluster:
        made = World(cluster, folder)
        echo = application(
            copy_package("echo", folder),
            model={
                "autoscaling_config": scaling(NODES, NODES),
                "ray_actor_options": {"num_gpus": 1, "num_cpus": 0.5},
            },
            env={"ECHO_JOURNAL": str(made.journal)},
        )
        cluster.deploy(echo)
        cluster.wait_running("echo")
        made.start_router()
        try:
            yield made
        finally:
            made.stop_router()


KILLS: dict[str, Callable[[World], None]] = {
    "replica": World.kill_replica,
    "worker": World.kill_worker,
    "gpu_node": World.kill_gpu_node,
    "front_node": World.kill_front_node,
    "all_of_serve": World.kill_all_of_serve,
    "gcs": World.kill_gcs,
    "router": World.kill_router,
}


@pytest.mark.parametrize("name", KILLS)
def test_nothing_accepted_is_lost(world: World, name: str) -> None:
    """500 accepted, 500 results, each the caller's own; a killed worker fails what it ran."""
    world.wait_whole()
    began = time.monotonic()
    with ThreadPoolExecutor(2) as helpers:
        submitted = helpers.submit(_submit_all, world, name)
        _wait_for_results(world, name, KILL_AFTER)
        waited = helpers.submit(_wait_for_results, world, name, PREDICTIONS)
        KILLS[name](world)  # not in a thread: what that starts would end with the thread
        submitted.result()
        longest_s = waited.result()
    took_s = time.monotonic() - began
    stored, runs = world.stored(name), world.runs(name)
    statuses = collections.Counter(status for _, status in stored)
    failed, stored_twice = statuses["failed"], len(stored) - len(dict(stored))
    ran_twice = sum(1 for times in runs.values() if times > 1)
    print(
        f"\n| {name} killed | {statuses['succeeded']} succeeded, {failed} failed "
        f"| {stored_twice} twice in the store | {ran_twice} ran twice "
        f"| longest pause {longest_s:.1f} s | took {took_s:.0f} s |"
    )
    assert (statuses.total(), stored_twice) == (PREDICTIONS, 0)
    assert statuses["succeeded"] == PREDICTIONS - failed
    assert failed <= (1 if name == "worker" else 0)
    for n, result in enumerate(world.results(name)):
        assert result["status"] == "failed" or result["output"]["text"] == f"{name}-{n}"
    assert all(runs[f"{name}-{n}"] for n in range(PREDICTIONS)) or failed


def _submit_all(world: World, name: str) -> None:
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(world.submit, [f"{name}-{n}" for n in range(PREDICTIONS)]))


def _wait_for_results(world: World, name: str, enough: int) -> float:
    """Until so many have a result; the longest time without a new one, in seconds."""
    longest_s, count, changed = 0.0, 0, time.monotonic()
    give_up = changed + LIMIT_S
    while count < enough:
        assert time.monotonic() < give_up, world.stored(name)
        time.sleep(0.2)
        if (now := world.ended(name)) != count:
            longest_s = max(longest_s, time.monotonic() - changed)
            count, changed = now, time.monotonic()
    return longest_s


def test_the_processes_that_are_killed_exist(world: World) -> None:
    """A title that Ray no longer uses would kill nothing."""
    world.wait_whole()
    for title in ("ray::ProxyActor", "ray::ServeController", "ray::ServeReplica:echo:front"):
        assert world.cluster.processes(title), title
    assert all(isinstance(p, psutil.Process) for p in world.cluster.processes("ray::"))
