"""What a person sees while a model loads, from what /status and the disk say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from router.cli import progress
from router.cli.progress import Downloads, LoadBar, hub_cache, size_of


def model(state: str, **more: Any) -> dict[str, Any]:
    """A model as /status describes it."""
    return {"state": state, "state_for_s": 5.0, "queue": [], "load_s": None, **more}


def test_a_load_is_measured_against_the_last_one() -> None:
    """Where the router knows how long that took; never past its end; else the bar only moves."""
    bars = Progress(console=Console(file=io.StringIO()))
    bar = LoadBar(bars, "painter")
    (task,) = bars.tasks
    bar.show(model("starting"))
    assert (task.description, task.total) == ("painter loads", None)
    bar.show(model("starting", load_s=20.0, queue=[{"id": "a"}]))
    assert (task.description, task.percentage) == ("painter loads, 1 in line", 25)
    bar.show(model("starting", load_s=20.0, state_for_s=60.0))
    assert task.percentage == 100
    bar.show(model("busy", load_s=20.0))
    assert task.description == "painter runs"


def test_downloads_are_what_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what came since; nothing is said of some bytes; links are not counted twice."""
    monkeypatch.setattr(progress, "MEASURE_EVERY_S", -1.0)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "old").write_bytes(b"x" * (3 << 20))
    downloads = Downloads(tmp_path)
    assert downloads.grown_bytes() == 0
    (tmp_path / "blobs" / "new.incomplete").write_bytes(b"x" * 1000)
    assert downloads.grown_bytes() == 0
    (tmp_path / "blobs" / "new.incomplete").write_bytes(b"x" * (2 << 20))
    (tmp_path / "snapshot").symlink_to(tmp_path / "blobs" / "old")
    assert (2 << 20) <= downloads.grown_bytes() < (2 << 20) + 4096
    assert size_of(tmp_path / "nothing") == 0


def test_the_hubs_cache_is_where_its_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """In huggingface_hub's own order."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path.home() / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert hub_cache() == Path("/c")
