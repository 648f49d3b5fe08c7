"""Weights in int8, as torchao makes them: tensors that are made of other tensors."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.router.models.sleep_hook.card import Card, sleeper

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[4]
MODULE = "tests.router.models.sleep_hook.test_quantised"
CYCLES = 50


@pytest.fixture(scope="session")
def torchao(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with torchao alone, in the version that a package of this repository asks for. It is
    not among the requirements."""
    (pin,) = set(re.findall(r"torchao==[\d.]+", (ROOT / "sketch2real" / "speed.py").read_text()))
    folder = tmp_path_factory.mktemp("torchao")
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-deps", "--target", str(folder), pin]
    if subprocess.run(argv, check=False, capture_output=True).returncode:
        pytest.skip(f"{pin} cannot be installed here")
    return folder


def test_int8(torchao: Path) -> None:
    """In a process of its own, so that no other test has it."""
    code = f"from {MODULE} import sleep_fifty_times; sleep_fifty_times()"
    path = os.pathsep.join((str(ROOT), str(torchao)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(CYCLES)


def sleep_fifty_times() -> None:
    """Asleep, the parts of a quantised weight are gone; awake, it answers as before."""
    from torchao import quantization  # type: ignore[import-not-found, unused-ignore]

    gc.collect()
    gc.freeze()  # what the imports have made need not be looked through in each sleep
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512)).eval()
    quantization.quantize_(net, quantization.Int8WeightOnlyConfig())
    weight = net[0].weight
    assert type(weight).__module__.startswith("torchao")
    assert weight.qdata.dtype is torch.int8
    x = torch.randn(3, 512)

    def predict() -> bytes:
        with torch.inference_mode():
            return bytes(net(x).numpy().tobytes())

    before, s = predict(), sleeper(Card())
    for number in range(CYCLES):
        slept = s.sleep()
        assert slept["freed_bytes"] >= weight.numel()
        assert not weight.qdata.untyped_storage().nbytes()
        assert not weight.scale.untyped_storage().nbytes()
        s.wake()
        assert predict() == before, number
    print(CYCLES)
