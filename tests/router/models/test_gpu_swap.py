"""`make gpu-swap` runs to its end, on a machine without a GPU too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "gpu_swap.py"


def test_the_parts_without_a_router() -> None:
    """No part fails, and what it measures answers as before."""
    argv = [sys.executable, str(SCRIPT), "--tiny", "--part", "hook", "driver"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [row["failed"] for row in rows if "failed" in row] == []
    found = {row["measure"] for row in rows}
    (driver,) = [row for row in rows if row["measure"] == "driver"]
    assert driver["unfit"] or "suspend" in found
    assert found >= {"machine", "copy_rate", "stage", "cycles", "pin", "wake_out_of_memory"}
    assert {row["identical"] for row in rows if "identical" in row} == {True}
    assert {row["noticed"] for row in rows if "noticed" in row} == {True}
    assert {row["ended"] for row in rows if "ended" in row} == {True}
