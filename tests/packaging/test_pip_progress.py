"""What `make up` shows while pip works: which file, how much, how far, and why it failed."""

from __future__ import annotations

import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests import wheels
from tests.e2e.terminal import Program
from tests.waiting import wait_until

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "pip_progress.py"
FILE = "pond-1-py3-none-any.whl"


class SlowIndex:
    """A package index with `pond` in it. Half of its file comes, then nothing until `go` is set."""

    def __init__(self, file: Path) -> None:
        self.go = threading.Event()
        content = file.read_bytes()
        index = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".whl"):
                    self._send("application/zip", len(content))
                    self.wfile.write(content[: len(content) // 2])
                    index.go.wait(120)
                    self.wfile.write(content[len(content) // 2 :])
                    return
                page = f'<!DOCTYPE html><a href="/{FILE}">{FILE}</a>'.encode()
                self._send("text/html", len(page))
                self.wfile.write(page)

            def _send(self, kind: str, length: int) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with nothing but pip in it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SlowIndex]:
    """With a file of 24 MB that cannot be made smaller."""
    noise = os.urandom(24 << 20).decode("latin-1")
    wheels.make(tmp_path, "pond", "1", {"pond.txt": noise})
    index = SlowIndex(tmp_path / FILE)
    yield index
    index.close()


def environment(index: SlowIndex) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    return {
        **env,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.url,
        "PIP_NO_CACHE_DIR": "1",
    }


def test_how_far_it_is(python: Path, index: SlowIndex, tmp_path: Path) -> None:
    """On a terminal: the file, what has come of it, and at the end what it took."""
    command = f"{python} {SCRIPT} 'a pond' pond"
    program = Program(command, tmp_path, {**environment(index), "TERM": "xterm"})
    try:
        half = re.compile(rf"· a pond  downloads {FILE}: (\d+) of (\d+) MB \(\d+ s\)")
        found = wait_until(
            lambda: (m := half.search(program.screen())) and 0 < int(m[1]) < int(m[2]) and m
        )
        assert int(found[2]) in range(30, 45)  # as UTF-8
        index.go.set()
        shown = program.ends()
    finally:
        program.close()
    assert re.fullmatch(r"  ✓ a pond  1 library installed in \d+ s, \d+ MB downloaded", shown)


def test_without_a_terminal(python: Path, index: SlowIndex) -> None:
    """A line for each large file. What pip says of a failure is shown in full."""
    index.go.set()

    def runs(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), str(SCRIPT), "a pond", *arguments],
            env=environment(index),
            capture_output=True,
            text=True,
            check=False,
        )

    done = runs("--force-reinstall", "pond")
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^  a pond  downloads {FILE}, \d+ MB$", done.stdout, re.M)
    assert "\x1b" not in done.stdout
    failed = runs("pond==7")
    assert failed.returncode == 1
    assert "No matching distribution found for pond==7" in failed.stdout
    assert failed.stdout.endswith("  ✗ a pond  pip cannot install it: see above\n")
