"""What the benchmarks on a GPU share: rows of JSON with the device's name, and a time limit for
each part, which runs in a process of its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENDS_WITHIN_S = 10.0

Report = Callable[..., None]
"""Called with the fields of a row as keywords."""


def reporter(bench: str, part: str, out: Path | None, *, is_tiny: bool) -> Report:
    """Return a function that prints a row, and appends it to `out`, as soon as it is called."""
    constant = {"bench": bench, "part": part, "weights": "tiny" if is_tiny else "full size, random"}
    constant |= provenance()

    def report(**fields: Any) -> None:
        line = json.dumps(constant | rounded(fields))
        print(line, flush=True)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    return report


def rounded(value: Any) -> Any:
    """Return the value with all its floats rounded to four places."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


def provenance() -> dict[str, Any]:
    """Return the device and its memory, the libraries' versions, the commit and the day.

    The commit is that of the variable COMMIT, for a machine without git, else what git says.
    """
    torch = importlib.import_module("torch")
    commit = os.environ.get("COMMIT", "")
    if not commit:
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
    has_gpu = torch.cuda.is_available()
    memory_bytes = torch.cuda.get_device_properties(0).total_memory if has_gpu else 0
    return {
        "device": torch.cuda.get_device_name() if has_gpu else platform.processor() or "cpu",
        "memory_gib": round(memory_bytes / 2**30, 1),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "diffusers")},
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def run_limited(command: Sequence[str], limit_s: float, env: dict[str, str]) -> str:
    """Run a command in a session of its own. Return why it failed, "" when it did not.

    At the limit, or when this process is interrupted, the whole session is ended.
    """
    child = subprocess.Popen(command, env=os.environ | env, start_new_session=True)
    try:
        code = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"over {limit_s:.0f} s"
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
                child.wait(ENDS_WITHIN_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    return f"exit code {code}" if code else ""


def run_parts(
    script: str, parts: dict[str, float], out: Path | None, *, is_tiny: bool, env: dict[str, str]
) -> None:
    """Run `script --here --part NAME` for each part, with its limit in seconds. Ends this process
    with a message when a part has failed."""
    failed = []
    for part, limit_s in parts.items():
        command = [sys.executable, script, "--here", "--part", part]
        command += ["--tiny"] if is_tiny else []
        command += ["--out", str(out)] if out else []
        if why := run_limited(command, limit_s, env):
            failed.append(f"{part} ({why})")
    if failed:
        sys.exit(f"Cannot finish {', '.join(failed)}")
