"""The allocator's settings reach the C library: seen from outside, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import resource, sys
from router.server_limits import tune_allocator
if sys.argv[1] == "tuned":
    tune_allocator()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(b"x") * 1_000_000
before = faults()
for _ in range(100):
    bytearray(b"x") * 1_000_000, bytearray(b"x") * 1_000_000
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")
def test_freed_memory_is_used_again() -> None:
    """Without page faults: untuned, each of these megabytes is 244 of them."""

    def count(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert count("tuned") < 2000 < count("plain")
