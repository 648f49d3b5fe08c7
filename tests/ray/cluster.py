"""A real Ray cluster on this machine for tests: a head and nodes, each with a raylet of its own.

A node without a GPU may have logical ones: Ray only counts them. What is deployed goes to Serve's
controller in the form of serve.yaml, as `serve deploy` sends it by way of the head's dashboard.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.waiting import LIMIT_S, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OBJECT_STORE_BYTES = 200 << 20
# How often the start of a node is tried: on a busy machine one may be too slow.
STARTS = 5
# The label of the nodes on which applications are built and fronts run.
FRONT = {"callme": "front"}
sys.path.insert(0, str(DEPLOY))


def application(package: Path, *, model: Mapping[str, Any], **args: Any) -> dict[str, Any]:
    """serve.yaml's part for one package. `model`: Serve's options of its replicas."""
    ray_source = importlib.import_module("ray_source")
    digest = ray_source.digest(ray_source.read_source(package))
    front = {
        "name": "front",
        "num_replicas": 2,
        "max_replicas_per_node": 1,
        "ray_actor_options": {"num_cpus": 0.1, "label_selector": FRONT},
    }
    return {
        "name": package.name,
        "route_prefix": f"/models/{package.name}",
        "import_path": "ray_app:app",
        "args": {"package": str(package), "digest": digest, **args},
        "deployments": [front, {"name": "model", **model}],
    }


def scaling(least: int, most: int, **more: Any) -> dict[str, Any]:
    """An autoscaling_config that reacts at once, as far as Serve can."""
    return {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 5,
        "look_back_period_s": 11,
        **more,
    }


class RayCluster:
    """A head and other nodes, with one logical GPU each.

    Each node has an entry for requests, at a port of its own here. Fronts run on the head and on
    the first of the others. `urls`: of these two entries.
    """

    def __init__(self, nodes: int, scratch: Path) -> None:
        from ray.cluster_utils import Cluster

        ray_utils: Any = importlib.import_module("ray._private.utils")
        # Without these a node's agent has no HTTP server, which nothing here asks: a raylet gives
        # its agent 15 s to start, and that is little on a busy machine.
        missing = ImportError("the dashboard is not needed")
        ray_utils.get_dashboard_dependency_error = lambda: missing
        # Nodes import ray_app; replicas get it from there.
        settings = {
            "PYTHONPATH": str(DEPLOY),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_worker_niceness": "0",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300",
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(scratch / "gcs"),
        }
        os.environ.update(settings)
        ports = [free_port(), free_port()]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.url = self.urls[0]
        self._cluster = Cluster()
        self._coglets: set[psutil.Process] = set()
        self.nodes = [self.add_node(port) for port in (*ports, *[0] * nodes)[:nodes]]
        # What the cluster logs is in /tmp/ray; tests print only what they measure.
        ray: Any = importlib.import_module("ray")
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        self._config: dict[str, Any] = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": ports[0]},
            "applications": [],
        }

    def add_node(self, front_port: int = 0) -> Any:
        """One more node with a logical GPU; with fronts if their port is given."""
        # A raylet ends itself when an agent of its needs more than 15 s to start.
        for _ in range(STARTS - 1):
            with contextlib.suppress(Exception):
                return self._try_add_node(front_port)
        return self._try_add_node(front_port)

    def _try_add_node(self, front_port: int) -> Any:
        agents = (
            *("metrics_agent_port", "metrics_export_port"),
            *("runtime_env_agent_port", "dashboard_agent_listen_port"),
        )
        return self._cluster.add_node(
            num_cpus=4,
            num_gpus=1,
            object_store_memory=OBJECT_STORE_BYTES,
            labels=FRONT if front_port else None,
            env_vars={"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(front_port or free_port())},
            include_dashboard=False,
            **{port: free_port() for port in agents},
        )

    def deploy(self, *applications: dict[str, Any]) -> None:
        """Deploy these, and remove all others."""
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        self._config["applications"] = list(applications)
        config = ServeDeploySchema.model_validate(self._config)
        http = self._config["http_options"]
        serve.start(proxy_location=config.proxy_location, http_options=http)
        _get_global_client().deploy_apps(config, _blocking=False)

    def details(self) -> dict[str, Any]:
        """What Serve says of its applications, by name."""
        from ray.serve.context import _get_global_client

        return dict(_get_global_client().get_serve_details()["applications"])

    def wait_running(self, *names: str) -> None:
        """Until these applications are deployed; fails at once when one cannot be."""

        def running() -> bool:
            found = self.details()
            for name in names:
                status = found.get(name, {}).get("status")
                assert status not in ("DEPLOY_FAILED", "UNHEALTHY"), found[name]
            return all(found.get(name, {}).get("status") == "RUNNING" for name in names)

        wait_until(running, 240)

    def replicas(self, name: str, deployment: str = "model") -> list[dict[str, Any]]:
        """The replicas of one deployment that run now."""
        found = self.details().get(name, {}).get("deployments", {}).get(deployment, {})
        return [r for r in found.get("replicas", []) if r["state"] == "RUNNING"]

    def processes(self, title: str) -> list[psutil.Process]:
        """The workers of all nodes whose title begins so."""
        self._note_coglets()  # who asks is about to kill some
        return [p for p, command in self._descendants() if (command or [""])[0].startswith(title)]

    def _note_coglets(self) -> None:
        """Remember the Cog servers that run now, to see that they end."""
        self._coglets |= {p for p, command in self._descendants() if "cog.server.http" in command}

    def _descendants(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        """All processes below the raylets, with their command lines."""
        for node in self.nodes:
            for started in node.all_processes["raylet"]:
                for process in psutil.Process(started.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        yield process, process.cmdline()

    def kill_node(self, node: Any) -> None:
        """kill -9 its raylet and agents; its workers end with it."""
        self._note_coglets()
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: self._alive() == len(self.nodes))

    def _alive(self) -> int:
        """How many nodes the cluster counts."""
        import ray

        return sum(1 for node in ray.nodes() if node["Alive"])

    def pause_gcs(self, seconds: float) -> None:
        """kill -9 the head's gcs_server, and start it again after so long."""
        head = self._cluster.head_node
        head.kill_gcs_server()
        time.sleep(seconds)
        head.start_gcs_server()

    def stop(self) -> None:
        """End everything; fails when a Cog server is left."""
        import ray
        from ray import serve

        self._note_coglets()
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()
        psutil.wait_procs(self._coglets, timeout=LIMIT_S)
        assert not [p for p in self._coglets if p.is_running()]


@contextlib.contextmanager
def ray_cluster(nodes: int, scratch: Path) -> Iterator[RayCluster]:
    """A cluster, which ends with the block."""
    cluster = RayCluster(nodes, scratch)
    try:
        yield cluster
    finally:
        cluster.stop()


def copy_package(name: str, folder: Path, called: str = "") -> Path:
    """A test's package, or one of the project's, copied to a folder of its own."""
    source = ROOT / "tests" / "packages" / name
    target = folder / (called or name)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".cog", "__pycache__"))
    return target


# ---- callers ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit of connections."""
    no_limit = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=no_limit) as http:
        yield http


async def predict(
    http: aiohttp.ClientSession, url: str, prediction_id: str = "", **inputs: Any
) -> tuple[int, dict[str, Any]]:
    """POST a prediction below `url`; status and answer."""
    body = {"input": inputs} | ({"id": prediction_id} if prediction_id else {})
    async with http.post(f"{url}/predictions", json=body) as answer:
        return answer.status, await answer.json(content_type=None)


class Load:
    """Clients that each send one prediction after the other until `stop`."""

    def __init__(self, url: str, clients: int, **inputs: Any) -> None:
        self._url, self._clients, self._inputs = url, clients, inputs
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.pids: dict[int, float] = {}  # of each process that answered, when it first did
        self.refused: list[tuple[int, Any]] = []
        self.slowest_s = 0.0
        self.answered = 0

    async def __aenter__(self) -> Load:
        self._began = time.monotonic()
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        async with session() as http:
            while not self._stopping:
                began = time.monotonic()
                status, answer = await predict(http, self._url, **self._inputs)
                now = time.monotonic()
                self.slowest_s = max(self.slowest_s, now - began)
                if status != 200 or answer["status"] != "succeeded":
                    self.refused.append((status, answer))
                    await asyncio.sleep(1)
                    continue
                self.answered += 1
                self.pids.setdefault(answer["output"]["pid"], round(now - self._began, 1))


async def until(condition: Callable[[], object], limit_s: float = 5 * LIMIT_S) -> None:
    """Wait until the condition, which may block a while, is true."""
    deadline = time.monotonic() + limit_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        await asyncio.sleep(0.5)
