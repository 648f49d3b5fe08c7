"""Any package of this folder on Modal, unchanged.

    callme modal deploy MODEL
    MODEL=grounding modal deploy deploy/modal_app.py     the same, by hand

Image, GPU, concurrency and schema come from the package's cog.yaml and runner. Each container
runs Cog's own server; `modal_front.py` lets its prediction path, and little else, be seen.
The answer is Cog's: POST {"input": {…}} to /predictions, with a proxy token of the workspace
in Modal-Key and Modal-Secret. docs/remote/modal.md has the settings, all read from the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import modal
from cog_image import (
    UNCOPIED,
    CannotDeployError,
    ImageParts,
    read_dockerignore,
    read_image_parts,
    schema_command,
)
from cog_server import CogServer
from fastapi import FastAPI
from modal_front import ask, create_front

HERE = Path(__file__).resolve().parent
LIBRARY = "/root"  # where Modal puts this module, and looks for what it imports
SCHEMA_SCRIPT = HERE.parent / "router" / "models" / "runner_schema.py"
# What the front needs beside the package's own requirements; as in pyproject.toml.
FRONT_PACKAGES = ("aiohttp==3.14.5", "fastapi==0.165.0", "PyYAML==6.0.3")
# The cheapest card on which every default preset fits (klein: 15 GiB).
DEFAULT_GPU = "L4"
CACHES = {"HF_HOME": "/weights/huggingface", "TORCHINDUCTOR_CACHE_DIR": "/weights/inductor"}

# Settings from the shell that deploys which are read in the container too.
CARRIED = ("WEIGHTS", "SNAPSHOT", "SETUP_TIMEOUT_S")


def setting(name: str, default: str) -> str:
    """From the environment of the shell that deploys; in the container, as it was then."""
    return os.environ.get(name) or default


MODEL = setting("MODEL", "")
SOURCE = setting("SOURCE", "/src")  # where the package is in the container
PACKAGES_DIR = Path(setting("PACKAGES_DIR", str(HERE.parent)))
FOLDER = PACKAGES_DIR / MODEL if modal.is_local() else Path(SOURCE)
SETUP_TIMEOUT_S = int(setting("SETUP_TIMEOUT_S", "1200"))
# "off" for a runner that does not survive being frozen; then each cold start loads the weights.
SNAPSHOT = setting("SNAPSHOT", "on") == "on"
if not MODEL or not (FOLDER / "cog.yaml").is_file():
    raise CannotDeployError("Cannot deploy: MODEL must name a folder that has a cog.yaml")
PARTS = read_image_parts(FOLDER)


def build_image(parts: ImageParts, folder: Path) -> modal.Image:
    """The package's image, in Cog's order: base, system, requirements, run commands, source."""
    if parts.gpu:
        image = modal.Image.from_registry(parts.cuda_image, add_python=parts.python_version)
    else:
        image = modal.Image.debian_slim(python_version=parts.python_version)
    if parts.system_packages:
        image = image.apt_install(*parts.system_packages)
    requirements = [str(folder / parts.requirements)] if parts.requirements else None
    image = image.uv_pip_install(*parts.packages, *FRONT_PACKAGES, requirements=requirements)
    if parts.run_commands:
        image = image.run_commands(*parts.run_commands)
    carried = {
        k: os.environ[k] for k in ("WEIGHTS", "SNAPSHOT", "SETUP_TIMEOUT_S") if k in os.environ
    }
    image = image.env({**CACHES, **parts.environment, **carried, "MODEL": MODEL})
    ignored = [*UNCOPIED, *read_dockerignore(folder)]
    image = image.add_local_dir(folder, SOURCE, copy=True, ignore=ignored)
    image = image.add_local_file(SCHEMA_SCRIPT, f"{LIBRARY}/{SCHEMA_SCRIPT.name}", copy=True)
    image = image.workdir(SOURCE).run_commands(
        schema_command(f"{LIBRARY}/{SCHEMA_SCRIPT.name}", parts.runner)
    )
    for module in ("cog_image.py", "cog_server.py", "modal_front.py"):
        image = image.add_local_file(HERE / module, f"{LIBRARY}/{module}")
    return image


app = modal.App(f"callme-{MODEL}")
weights = modal.Volume.from_name("callme-weights", create_if_missing=True)
secret_names = [name for name in setting("SECRETS", "").split(",") if name]


@app.cls(
    image=build_image(PARTS, FOLDER) if modal.is_local() else None,
    gpu=setting("GPU", DEFAULT_GPU) if PARTS.gpu else None,
    volumes={"/weights": weights},
    secrets=[modal.Secret.from_name(name) for name in secret_names],
    scaledown_window=int(setting("SCALEDOWN_S", "300")),
    min_containers=int(setting("MIN_CONTAINERS", "0")),
    max_containers=int(setting("MAX_CONTAINERS", "3")),
    timeout=int(setting("PREDICT_TIMEOUT_S", "600")),
    startup_timeout=SETUP_TIMEOUT_S,
    enable_memory_snapshot=SNAPSHOT,
    experimental_options={"enable_gpu_snapshot": True} if SNAPSHOT and PARTS.gpu else None,
)
# Modal counts every request; what one container does not take, another is started for.
@modal.concurrent(max_inputs=PARTS.concurrency)
class Model:
    """One container: Cog's server, loaded, and snapshotted with its weights in memory."""

    @modal.enter(snap=SNAPSHOT)
    def load(self) -> None:
        """Run the package's set-up. Raises SetupFailedError."""
        self.server = CogServer(
            FOLDER,
            PARTS.runner,
            concurrency=PARTS.concurrency,
            setup_timeout_s=SETUP_TIMEOUT_S,
        )
        self.server.start()

    @modal.enter(snap=False)
    def wake(self) -> None:
        """Check that the server restored from a snapshot answers; if not, load it again."""
        self.server.ensure_ready()

    @modal.method()
    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """For other Modal code: Cog's whole answer to these inputs. Raises ValueError for one
        that is not an answer (422 and the like)."""
        status, body = asyncio.run(ask(self.server, {"input": inputs}))
        if status != 200:
            raise ValueError(f"Cog's server answered {status}: {body.decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    @modal.asgi_app(requires_proxy_auth=True)
    def web(self) -> FastAPI:
        """What the world sees."""
        return create_front(self.server)

    @modal.exit()
    def stop(self) -> None:
        """End the server before the container goes."""
        self.server.stop()
