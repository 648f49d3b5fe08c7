"""Three Cog packages of real size, written for one run of `bench/gpu_swap.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.gpu_rows import ROOT
from bench.gpu_swap_model import Layer, bytes_of_layer

GB, MB = 10**9, 10**6
SERVER_BYTES = 35 * MB  # of main memory, which coglet's server takes besides the worker
BARE = """
import os, cog, safetensors.torch, torch
from router.models.memory import HostMemory
torch.ones(512, 512).bfloat16() @ torch.ones(512, 512).bfloat16()
print(HostMemory(0).measure([os.getpid()]))
"""
# Assumed of a process's context on a card, with the kernels it has loaded; rather too much.
CONTEXT_BYTES = GB

RUN = '''"""A package that knows nothing of sleep."""

import os
from pathlib import Path

import torch
from cog import BaseRunner, Input
from swap_model import load


class Runner(BaseRunner):
    def setup(self) -> None:
        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        folder, count = Path(os.environ["SWAP_WEIGHTS"]), int(os.environ["SWAP_SHARDS"])
        shards = [folder / f"{n}.safetensors" for n in range(count)]
        each, width = int(os.environ["SWAP_LAYERS"]), int(os.environ["SWAP_WIDTH"])
        self.model = load(shards, each, width, device)
        self.model.answer(0)

    def run(self, seed: int = Input(description="What to start with", default=1)) -> str:
        return self.model.answer(seed)
'''


@dataclass(frozen=True)
class Plan:
    """Which models there are, and how much memory they may take together. `models`: the number of
    shards of each. One model fits awake, with the others asleep, and no two do."""

    models: dict[str, int]
    layers: int  # in a shard
    width: int
    limit_bytes: int
    default_footprint_bytes: int
    has_card: bool
    is_tiny: bool

    @property
    def shards(self) -> int:
        """In the largest model. The others use the first of the same shards."""
        return max(self.models.values())

    @property
    def bytes_of_shard(self) -> int:
        """All weights in a shard."""
        return self.layers * bytes_of_layer(self.width)

    @property
    def smallest_bytes(self) -> int:
        """The weights of the smallest model."""
        return min(self.models.values()) * self.bytes_of_shard

    def settings(self, *, can_sleep: bool) -> dict[str, str]:
        """The router's settings, as its environment has them. A model may leave as soon as it is
        idle, so that a switch takes only what it has to do."""
        way = "auto" if self.has_card else "cpu"
        return {
            "CALLME_SLEEP": way if can_sleep else "never",
            "CALLME_MEMORY_LIMIT_BYTES": str(self.limit_bytes),
            "CALLME_DEFAULT_FOOTPRINT_BYTES": str(self.default_footprint_bytes),
            "CALLME_MIN_RESIDENCY_S": "0",
            "CALLME_SYNC_LIMIT_S": "600",
        }

    def row(self) -> dict[str, Any]:
        """What a reader of the figures must know."""
        return {
            "models_bytes": {n: s * self.bytes_of_shard for n, s in self.models.items()},
            "limit_bytes": self.limit_bytes,
            "assumed_footprint_bytes": self.default_footprint_bytes,
        }


def make_plan(*, has_card: bool, is_tiny: bool) -> Plan:
    """Return three models for this machine."""
    names = ("small", "middle", "large")
    if is_tiny:
        layers, width, count, rest = 21, 1024, 10, bare_bytes()
        total = count * layers * bytes_of_layer(width)
        return Plan(
            dict.fromkeys(names, count), layers, width,
            3 * rest + total * 17 // 10, rest + total, has_card, is_tiny,
        )  # fmt: skip
    width = 4096
    layers = round(GB / bytes_of_layer(width))
    shards = (10, 12, 14) if pids_are_seen() else (12, 12, 12)
    # Set-up holds a shard twice.
    most = (shards[-1] + 1) * GB + CONTEXT_BYTES
    limit = most + 2 * (GB + CONTEXT_BYTES) + GB // 2
    return Plan(
        dict(zip(names, shards, strict=True)), layers, width, limit, most, has_card, is_tiny
    )


def bare_bytes() -> int:
    """Return what a model's processes hold in main memory besides weights."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    said = subprocess.run(
        [sys.executable, "-c", BARE], env=env, check=True, capture_output=True, text=True
    )
    return int(said.stdout) + SERVER_BYTES


def pids_are_seen() -> bool:
    """Whether the driver lists this process by the pid that it has here. In a container it may not;
    then the router cannot measure its models and assumes one size for all."""
    import pynvml  # noqa: PLC0415 - not without a card

    torch.empty(1, device="cuda")
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    return os.getpid() in {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(card)}


def room_for(size: int) -> str:
    """Return a folder on a file system with room for so many bytes, in memory if there is one."""
    for folder in ("/dev/shm", tempfile.gettempdir()):  # noqa: S108 - TemporaryDirectory makes one there
        if Path(folder).is_dir() and shutil.disk_usage(folder).free > size + 2 * GB:
            return folder
    raise OSError(f"There is no room for {size // MB} MB of weights")


def write_packages(home: Path, plan: Plan) -> Path:
    """Write the packages and the Python that runs them, and return their folder."""
    python = write_python(home / "python")
    for name, shards in plan.models.items():
        folder = home / "packages" / name
        folder.mkdir(parents=True)
        (folder / ".venv").symlink_to(python)
        (folder / "run.py").write_text(RUN)
        shutil.copy(ROOT / "bench" / "gpu_swap_model.py", folder / "swap_model.py")
        variables = {
            "SWAP_WEIGHTS": home / "weights",
            "SWAP_SHARDS": shards,
            "SWAP_LAYERS": plan.layers,
            "SWAP_WIDTH": plan.width,
        }
        lines = [f'  - "{key}={value}"\n' for key, value in variables.items()]
        (folder / "cog.yaml").write_text('run: "run.py:Runner"\nenvironment:\n' + "".join(lines))
    return home / "packages"


def write_python(folder: Path) -> Path:
    """Make an environment with all that this process can import: a model's process does not inherit
    PYTHONPATH, and it needs a `python` beside its own."""
    venv.EnvBuilder(system_site_packages=True, symlinks=True, with_pip=False).create(folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    own = [p for p in sys.path if p.endswith(("site-packages", "dist-packages")) or _is_given(p)]
    (packages / "here.pth").write_text("".join(f"{p}\n" for p in own))
    return folder


def _is_given(path: str) -> bool:
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return path in given and Path(path).resolve() != ROOT and Path(path).is_dir()


def write_weights(folder: Path, plan: Plan) -> None:
    """Write all shards, made where they are made quickest."""
    from safetensors.torch import save_file  # noqa: PLC0415 - after torch

    folder.mkdir()
    device = "cuda" if plan.has_card else "cpu"

    def write(number: int) -> None:
        with torch.device(device):
            layers = torch.nn.ModuleList(
                Layer(plan.width).to(torch.bfloat16) for _ in range(plan.layers)
            )
        weights = {key: value.cpu() for key, value in layers.state_dict().items()}
        save_file(weights, folder / f"{number}.safetensors")

    with ThreadPoolExecutor(4 if plan.has_card else 1) as threads:
        list(threads.map(write, range(plan.shards)))
    if plan.has_card:
        torch.cuda.empty_cache()
