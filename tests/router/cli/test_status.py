"""What `callme status` prints fits a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from router.cli import app, status

NAMES = [
    *(f"detector-of-everything-number-{n}" for n in range(40)),
    "a-name-that-is-as-long-as-the-router-lets-one-be-which-is-63-le",
    "grounding@a-version-that-is-as-long-as-the-router-lets-one-be",
]


def model(**other: Any) -> dict[str, Any]:
    """A model with the widest numbers that may be."""
    numbers = {"load_s": 1234.5, "service_s": 12345.6, "crashes": 1000, "retry_in_s": 300.0}
    return {
        **{"state": "unhealthy", "running": ["x"] * 100, "queue": ["x"] * 10000},
        **{"memory_bytes": 141_000 << 20, "last_failure": "", **numbers, **other},
    }


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The output for many models with long names, failures and a canary."""
    models = {name: model() for name in NAMES}
    reason = "its set-up failed: RuntimeError: " + "the weights do not fit " * 10
    models[NAMES[0]] = model(last_failure=reason, state="failed")
    models[NAMES[1]] = model(last_failure=reason, state="ready")
    models[NAMES[2]] = model(unreadable=reason)
    record = {"succeeded": 123456, "failed": 12345, "run_p50_s": 1.25}
    version = f"{NAMES[3]}@next"
    compared = {NAMES[3]: record, version: record}
    models[NAMES[3]] = model(canary={"share": 0.1, "version": version, "compared": compared})
    memory = {"held_bytes": 1_400_000 << 20, "budget_bytes": 1_500_000 << 20}
    state = {
        **{"uptime_s": 12345678.9, "memory": memory, "draining": True, "models": models},
        "left_out": {"a-folder-with-a-mistake": reason},
    }
    monkeypatch.setattr(status, "_look", lambda *_: state)
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(tmp_path))
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_no_line_is_longer_than_80_columns(shown: str) -> None:
    """Whatever the models are called, and however many there are."""
    assert max(map(len, shown.splitlines())) <= 80


def test_nothing_is_cut_off(shown: str) -> None:
    """Names and reasons go on in the next line, numbers stay whole."""
    assert "…" not in shown
    first = "".join(line.split()[0] for line in shown.splitlines())
    for name in NAMES:
        assert name in first, shown
    assert shown.count("141000 MiB") == len(NAMES)
    assert " ".join(shown.split()).count("the weights do not fit " * 9) == 4
    assert f"{NAMES[1]}, before its last start: its set-up" in " ".join(shown.split())
