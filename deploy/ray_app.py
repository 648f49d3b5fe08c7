"""A package of this folder on Ray Serve, unchanged: one application, its fronts and its replicas.

serve.yaml has one application for each package (docs/ray.md):

    - name: grounding
      route_prefix: /models/grounding
      import_path: ray_app:app
      args: {package: /srv/callme/grounding, digest: 5d41402abc4b2a76}

Serve builds an application again when its part of the file has changed, and then replaces all its
replicas. So every package is an application of its own, and `digest` is that of its source: a
package whose source has not changed goes on as it is. What Serve itself can set (`num_replicas`,
`autoscaling_config`, `ray_actor_options`, …) is set below `deployments` and replaces what is here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cog_image import CannotDeployError, read_image_parts
from pydantic import BaseModel, ConfigDict
from ray import cloudpickle, serve
from ray.serve.config import RequestRouterConfig
from ray_front import Front
from ray_replica import CogReplica
from ray_source import digest, pack, read_schema, read_source

# These travel to the replicas as they are here: nodes have no other version of them, and need none.
BY_VALUE = ("cog_image", "cog_server", "ray_files", "ray_front", "ray_replica", "ray_source")
# A replica takes one prediction more than it runs, so that the GPU need not wait for the next.
AHEAD = 1
# Who finds no free place looks again after up to 0.5 s by default, while the GPU idles.
FREE_PLACE_FIRST_S, FREE_PLACE_MAX_S = 0.01, 0.05
# Serve's replicas report their load every 10 s, and the look-back must be longer.
LOOK_BACK_S = 12.0


class Args(BaseModel):
    """`package`: its folder, on this node and where replicas run. `digest`: of the source that was
    deployed. `env`: of the model's process. `tries_again`: how often a prediction is run again
    whose replica was lost. `key_file`: of the key that callers must send. `files_url`: the
    router's address, with which replicas exchange large files."""

    model_config = ConfigDict(extra="forbid")
    package: str
    digest: str = ""
    env: dict[str, str] = {}
    setup_timeout_s: int = 1200
    tries_again: int = 1
    key_file: str = ""
    files_url: str = ""


def app(given: dict[str, Any]) -> serve.Application:
    """The application of one package, from the `args` of serve.yaml. Raises CannotDeployError, and
    ValidationError for unknown or missing arguments."""
    args = Args.model_validate(given)
    folder = Path(args.package)
    parts = read_image_parts(folder)
    files = read_source(folder)
    if args.digest not in ("", digest(files)):
        raise CannotDeployError(
            f"Cannot deploy {folder}: its source here is {digest(files)}, and {args.digest} was to "
            "be deployed. Copy the folder to this node too"
        )
    schema = read_schema(folder, parts.runner)
    for name in BY_VALUE:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    model = serve.deployment(CogReplica).options(
        name="model",
        max_ongoing_requests=parts.concurrency + AHEAD,
        max_queued_requests=256,
        ray_actor_options={"num_gpus": 1 if parts.gpu else 0, "num_cpus": 1},
        autoscaling_config={
            "min_replicas": 0,
            "max_replicas": 1,
            "target_ongoing_requests": parts.concurrency,
            "upscale_delay_s": 2,
            "downscale_delay_s": 300,
            "look_back_period_s": LOOK_BACK_S,
        },
        request_router_config=RequestRouterConfig(
            initial_backoff_s=FREE_PLACE_FIRST_S, max_backoff_s=FREE_PLACE_MAX_S
        ),
        health_check_period_s=2,
        health_check_timeout_s=20,
        # An update or a smaller load waits so long for what runs.
        graceful_shutdown_timeout_s=600,
        graceful_shutdown_wait_loop_s=0.5,
        max_constructor_retry_count=3,
    )
    front = serve.deployment(Front).options(
        name="front",
        num_replicas=1,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_timeout_s=600,
    )
    replicas = model.bind(
        str(folder),
        pack({**files, ".cog/openapi_schema.json": json.dumps(schema).encode()}),
        parts.runner,
        concurrency=parts.concurrency,
        setup_timeout_s=args.setup_timeout_s,
        env={**parts.environment, **args.env},
    )
    return front.bind(
        replicas,
        schema,
        concurrency=parts.concurrency,
        tries_again=args.tries_again,
        key_file=args.key_file,
        files_url=args.files_url,
    )
