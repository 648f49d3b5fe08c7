"""Runs the edge function on this machine, as `deno run` does it, for tests of any folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = ROOT / "supabase" / "functions" / "backend_server"
START_S = 240.0
STOP_S = 5.0


@dataclass
class EdgeFunction:
    """A running function: its address, its process and every line it has written."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)


def find_deno() -> Path:
    """The Deno of the interpreter's own environment, else the one on PATH.

    Raises: FileNotFoundError if there is neither.
    """
    beside = Path(sys.executable).parent / "deno"
    found = str(beside) if beside.exists() else shutil.which("deno")
    if found is None:
        raise FileNotFoundError("Cannot run the edge function: 'deno' must be installed (PyPI)")
    return Path(found)


def plain_env(**extra: str) -> dict[str, str]:
    """An environment without proxies, keys or settings of the person who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "DENO_DIR") if name in os.environ}
    return {**kept, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", **extra}


@contextmanager
def edge_function(env: Mapping[str, str], deno: Path | None = None) -> Iterator[str]:
    """Starts the function on a free loopback port with `env`; yields its URL; stops it.

    `env` holds the function's secrets, such as GPU_BACKEND_URL. Nothing is downloaded.
    """
    with edge_process(env, deno) as function:
        yield function.url


@contextmanager
def edge_process(
    env: Mapping[str, str], deno: Path | None = None, folder: Path = FUNCTION
) -> Iterator[EdgeFunction]:
    """Like `edge_function`, but yields the process and its output too, of the function in `folder`.

    Raises: RuntimeError with the function's output if it does not listen within START_S.
    """
    command = [str(deno or find_deno()), "run", "--no-remote", "--no-prompt", "--no-check"]
    process = subprocess.Popen(
        [*command, "--allow-net", "--allow-env", str(folder / "index.ts")],
        env=plain_env(**{"PORT": "0", **env}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    function = EdgeFunction("", process)
    reader = threading.Thread(target=_drain, args=(function,), daemon=True)
    reader.start()
    try:
        function.url = _wait_for_url(function)
        yield function
    finally:
        _stop(process)
        reader.join(STOP_S)


def _drain(function: EdgeFunction) -> None:
    # To the end of the process: a full pipe would block the function's log, and so its answers.
    assert function.process.stdout is not None
    with function.process.stdout as output:
        for line in output:
            function.lines.append(line.rstrip())


def _wait_for_url(function: EdgeFunction) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and function.process.poll() is None:
        for line in list(function.lines):
            if found := re.search(r"Listening on (http://127\.0\.0\.1:\d+)", line):
                return found[1]
        time.sleep(0.01)
    raise RuntimeError("Cannot start the edge function:\n" + "\n".join(function.lines))


def _stop(process: subprocess.Popen[str]) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, signal_number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
