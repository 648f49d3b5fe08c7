"""The RayService of KubeRay for a serve.yaml: the same cluster on Kubernetes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from router.cli.common import fail

# KubeRay's service of a cluster leads to this port.
PORT = 8000
MANIFEST = """\
# Written by `callme ray kubernetes`. Needs KubeRay 1.7 (docs/ray/kubernetes.md).
apiVersion: ray.io/v1
kind: RayService
metadata: {{name: callme}}
spec:
  serveConfigV2: |
{serve}  # How long a cluster that was replaced may end what it runs.
  rayClusterDeletionDelaySeconds: 600
  rayClusterConfig:
    rayVersion: "{version}"
    enableInTreeAutoscaling: true
    # KubeRay's feature gate GCSFaultToleranceEmbeddedStorage must be on.
    gcsFaultToleranceOptions: {{backend: rocksdb, storage: {{size: 1Gi}}}}
    headGroupSpec:
      labels: {{callme: front}}
      rayStartParams: {{}}
      template:
{front_pod}    workerGroupSpecs:
{groups}"""
GROUP = """\
    - groupName: {name}
      minReplicas: {least}
      maxReplicas: {most}
      labels: {labels}
      rayStartParams: {{}}
      template:
{pod}"""
POD = """\
spec:
  containers:
  - name: ray
    image: {image}
    env:
    - {{name: PYTHONPATH, value: {deploy}}}
    resources:
      requests: {resources}
      limits: {resources}
"""


def manifest(serve: str, *, image: str, version: str, deploy: Path, cpus: int, memory: str) -> str:
    """The RayService for the text of a serve.yaml: a pod for the head and for each further front,
    and as many for models as these may need GPUs, from none. `image`: has the checkout, whose
    `deploy` folder is given, and Ray `version`. `cpus`, `memory`: of a pod for models."""
    config = yaml.safe_load(serve)
    if config["http_options"]["port"] != PORT:
        fail(f"Cannot write a RayService: http_options.port must be {PORT} on Kubernetes")
    fronts, pods = 1, 0
    for application in config["applications"]:
        deployments = {d["name"]: d for d in application["deployments"]}
        fronts = max(fronts, deployments["front"].get("num_replicas", 1))
        pods += _gpus(deployments["model"])

    def pod(resources: Mapping[str, str]) -> str:
        text = POD.format(
            image=json.dumps(image), deploy=json.dumps(str(deploy)), resources=json.dumps(resources)
        )
        return indent(text, 8 * " ")

    front_pod = pod({"cpu": "2", "memory": "6Gi"})
    groups = []
    if fronts > 1:
        others = fronts - 1
        group = {"name": "front", "least": others, "most": others, "pod": front_pod}
        groups.append(GROUP.format(**group, labels="{callme: front}"))
    if pods:
        own = pod({"cpu": str(cpus), "memory": memory, "nvidia.com/gpu": "1"})
        groups.append(GROUP.format(name="gpu", least=0, most=pods, pod=own, labels="{}"))
    return MANIFEST.format(
        serve=indent(serve, 4 * " "),
        version=version,
        front_pod=front_pod,
        groups="".join(groups) or "    []\n",
    )


def _gpus(model: Mapping[str, Any]) -> int:
    """The most GPUs that the replicas of one model need."""
    replicas = (model.get("autoscaling_config") or {}).get("max_replicas")
    most = replicas or model.get("num_replicas") or 1
    gpus: float = (model.get("ray_actor_options") or {}).get("num_gpus", 0)
    return math.ceil(most * gpus)
