"""The router in front of a cluster of three raylets: the project's own packages, and what Ray sees
of the demand that waits in the router."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs Ray: make test-ray installs ray[serve]")

from tests.e2e.service import Service, running_service
from tests.packaging.isolated import example
from tests.ray.cluster import ROOT, RayCluster, application, copy_package, ray_cluster, scaling
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
NODES = 3
OURS = ("fluency", "grounding", "sketch2real")
MODULES = ("cog_image", "cog_server", "ray_source")  # of deploy/
DEMO = {"WEIGHTS": "demo"}
LIMIT_S = 300.0
REMOTE = """
[models.{name}]
backend = "cog"
queue_limit = 1000
[models.{name}.remote]
url = ["{}/models/{name}", "{}/models/{name}"]
concurrency = {concurrency}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Three raylets."""
    with ray_cluster(NODES, tmp_path_factory.mktemp("ray")) as started:
        yield started


@contextlib.contextmanager
def router(
    cluster: RayCluster, folder: Path, *names: str, concurrency: int = 4
) -> Iterator[Service]:
    """The router with these models, all on the cluster."""
    packages = folder / "none"
    packages.mkdir(parents=True)
    parts = (REMOTE.format(*cluster.urls, name=n, concurrency=concurrency) for n in names)
    (packages / "callme.toml").write_text("".join(parts))
    argv = [sys.executable, "-m", "uvicorn", "api:app"]
    with running_service(packages, folder / "state", argv=argv) as service:
        yield service


def submit(service: Service, name: str, prediction_id: str, inputs: dict[str, Any]) -> None:
    """Have a prediction accepted."""
    url = f"/models/{name}/predictions/{prediction_id}"
    headers = {"Prefer": "respond-async"}
    assert service.http.put(url, json={"input": inputs}, headers=headers).status_code == 202


def result(service: Service, name: str, prediction_id: str) -> dict[str, Any]:
    """The prediction, once it has ended."""

    def ended() -> dict[str, Any] | None:
        answer = service.http.get(f"/models/{name}/predictions/{prediction_id}").json()
        return None if answer["status"] in ("starting", "processing") else dict(answer)

    return dict(wait_until(ended, LIMIT_S))


def alone(name: str, folder: Path) -> Any:
    """The output of the package in Cog's own server, started as a replica does."""
    package = ROOT / name
    cog_image, cog_server, ray_source = map(importlib.import_module, MODULES)
    parts, files = cog_image.read_image_parts(package), ray_source.read_source(package)
    schema = json.dumps(ray_source.read_schema(package, parts.runner)).encode()
    packed = ray_source.pack({**files, ".cog/openapi_schema.json": schema})
    ray_source.unpack(packed, folder, package)
    # Ray gives a replica as many threads as CPUs; sums depend on their number.
    env = {**os.environ, **parts.environment, **DEMO, "OMP_NUM_THREADS": "1"}
    server = cog_server.CogServer(folder, parts.runner, concurrency=1, setup_timeout_s=300, env=env)
    server.start()
    try:
        body = {"input": example(package)}
        answer = httpx.post(f"{server.url}/predictions", json=body, timeout=LIMIT_S).json()
    finally:
        server.stop()
    assert answer["status"] == "succeeded", answer
    return answer["output"]


def differences(one: Any, other: Any, path: str = "output") -> list[str]:
    """Where two outputs differ. How long they took may."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        keys = one.keys() - {"timings"}
        return [d for key in keys for d in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{path}[{n}]")]
    return [] if one == other else [f"{path}: {str(one)[:80]} is not {str(other)[:80]}"]


def test_our_three_packages(cluster: RayCluster, tmp_path: Path) -> None:
    """Each has a GPU and so a node of its own, starts when it is asked, and its answer is that of
    the package alone."""
    gpu = {"num_gpus": 1, "num_cpus": 1}
    # None ends while another still starts.
    stays = scaling(0, 1, downscale_delay_s=600)
    model = {"autoscaling_config": stays, "ray_actor_options": gpu}
    cluster.deploy(*(application(ROOT / name, model=model, env=DEMO) for name in OURS))
    cluster.wait_running(*OURS)
    with router(cluster, tmp_path / "router", *OURS) as service:
        began = time.monotonic()
        for name in OURS:
            submit(service, name, f"{name}-first", example(ROOT / name))
        found = {name: result(service, name, f"{name}-first") for name in OURS}
        print(
            f"\nthree packages, none started: all answered after {time.monotonic() - began:.1f} s"
        )
        assert {name: r["status"] for name, r in found.items()} == dict.fromkeys(OURS, "succeeded")
        nodes = {cluster.replicas(name)[0]["node_id"] for name in OURS}
        assert len(nodes) == NODES
    for name in OURS:
        apart = differences(found[name]["output"], alone(name, tmp_path / name))
        print(f"{name}: {len(apart)} differences from the package alone {apart[:5]}")
        assert not apart


@pytest.mark.parametrize("concurrency", [1, 3, 5])
def test_what_waits_in_the_router_is_not_seen(
    cluster: RayCluster, tmp_path: Path, concurrency: int
) -> None:
    """60 predictions of 1 s wait. Ray starts replicas for those that the router has sent, of which
    there are `remote.concurrency`."""
    model = {
        "autoscaling_config": scaling(0, NODES),
        "ray_actor_options": {"num_gpus": 1, "num_cpus": 0.5},
    }
    echo = application(copy_package("echo", tmp_path), model=model)
    cluster.deploy(echo)
    cluster.wait_running("echo")
    wait_until(lambda: not cluster.replicas("echo"), LIMIT_S)
    with router(cluster, tmp_path / "router", "echo", concurrency=concurrency) as service:
        ids = [f"wait-{n}" for n in range(60)]
        began = time.monotonic()
        for prediction_id in ids:
            submit(service, "echo", prediction_id, {"delay_s": 1})
        came: list[float] = []
        while service.model("echo")["queue"] or service.model("echo")["running"]:
            new = len(cluster.replicas("echo")) - len(came)
            came += [round(time.monotonic() - began, 1)] * new
            time.sleep(0.5)
        took_s = time.monotonic() - began
        results = [result(service, "echo", prediction_id) for prediction_id in ids]
    print(f"\n| concurrency {concurrency} | replicas after {came} s | all after {took_s:.1f} s |")
    assert {r["status"] for r in results} == {"succeeded"}
    # Ray's average may be above 1 where one is sent at a time, so a second one may start.
    assert len(came) == NODES or concurrency < NODES
    assert len(came) < NODES or concurrency >= NODES
