"""bench/gpu.py: a figure that fails is a row, and a part ends when its time is over."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import gpu
from bench.gpu_figures import Figures
from bench.gpu_rows import reporter
from tests.waiting import wait_until


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_figure_that_fails_is_a_row_and_the_next_is_measured(tmp_path: Path) -> None:
    """Each row is on the disk as soon as its figure is there."""
    out = tmp_path / "rows.jsonl"
    figures = Figures(reporter("gpu", "some", out, is_tiny=True), 60.0)

    def fail() -> None:
        assert [row["measure"] for row in rows_of(out)] == ["first"]
        raise RuntimeError("CUDA out of memory")

    assert figures.measure("first", lambda: {"value": 1})
    assert not figures.measure("second", fail, preset="x")
    assert figures.measure("third", lambda: {"value": 3})
    assert [row.get("value", row.get("error")) for row in rows_of(out)] == [
        1, "RuntimeError: CUDA out of memory", 3,
    ]  # fmt: skip
    assert figures.errors == 1


def test_no_figure_begins_after_the_parts_time(tmp_path: Path) -> None:
    """It is named, so that nobody takes its absence for a figure."""
    out = tmp_path / "rows.jsonl"
    figures = Figures(reporter("gpu", "some", out, is_tiny=True), 0.0)
    assert not figures.measure("late", lambda: pytest.fail("it was begun"))
    assert rows_of(out)[0]["skipped"] == "no time left"


def test_a_part_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the parts after it run."""
    monkeypatch.setattr(gpu, "GRACE_S", 0)
    pid = tmp_path / "pid"
    hang = f"""
import subprocess
input()
child = subprocess.Popen(["sleep", "600"])
with open({str(pid)!r}, "w") as file:
    file.write(str(child.pid))
child.wait()
"""
    part = subprocess.Popen(
        [sys.executable, "-c", hang], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    assert "ended after" in gpu.finish(part, 5.0)
    assert part.returncode == -9
    wait_until(lambda: is_gone(int(pid.read_text())))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_a_part_runs_to_its_end_without_a_gpu(tmp_path: Path) -> None:
    """With tiny weights, so that time on a GPU is not spent on finding faults: no figure fails."""
    out = tmp_path / "rows.jsonl"
    script = Path(gpu.__file__)
    done = subprocess.run(
        [sys.executable, script, "--tiny", "--part", "fluency", "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = rows_of(out)
    assert {"written", "setup", "windows", "ours_to_stock"} < {row["measure"] for row in rows}
    assert rows[-1]["errors"] == 0
