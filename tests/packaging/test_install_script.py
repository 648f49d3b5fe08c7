"""What `make up` installs with: uv, from where pip is configured to look; pip where uv fails."""

from __future__ import annotations

import importlib
import os
import re
import signal
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

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "install.py"
sys.path.insert(0, str(SCRIPT.parent))
install = importlib.import_module("install")
FILE = "pond-1-py3-none-any.whl"


class Server(socketserver.ThreadingTCPServer):
    """Says nothing when a client goes away within an answer."""

    def handle_error(self, *_: object) -> None:
        assert isinstance(sys.exception(), ConnectionError)


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
                page = f'<!DOCTYPE html><a href="/{FILE}" data-core-metadata=true>{FILE}</a>'
                metadata = "Metadata-Version: 2.1\nName: pond\nVersion: 1\n"
                answer = (metadata if self.path.endswith(".metadata") else page).encode()
                self._send("text/html", len(answer))
                self.wfile.write(answer)

            def _send(self, kind: str, length: int) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        self._server = Server(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with nothing but pip and uv in it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (folder / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    return folder / "bin" / "python"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SlowIndex]:
    """With a file of 24 MB that cannot be made smaller."""
    noise = os.urandom(24 << 20).decode("latin-1")
    wheels.make(tmp_path, "pond", "1", {"pond.txt": noise})
    index = SlowIndex(tmp_path / FILE)
    yield index
    index.close()


def environment(index: SlowIndex, folder: Path) -> dict[str, str]:
    """What pip is configured with, as variables. uv keeps nothing from one test to the next."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    return {
        **env,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.url,
        "PIP_NO_CACHE_DIR": "1",
        "UV_CACHE_DIR": str(folder / "cache"),
    }


def runs(
    python: Path, variables: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The script without a terminal."""
    return subprocess.run(
        [str(python), str(SCRIPT), *arguments],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_how_far_it_is(python: Path, index: SlowIndex, tmp_path: Path) -> None:
    """On a terminal: the file, what has come of it, and at the end what it took, without a list."""
    command = f"{python} {SCRIPT} pond"
    program = Program(command, tmp_path, {**environment(index, tmp_path), "TERM": "xterm"})
    try:
        half = re.compile(r"pond +-+ ([\d.]+) MiB/([\d.]+) MiB")
        wait_until(lambda: (m := half.search(program.screen())) and 0 < float(m[1]) < float(m[2]))
        index.go.set()
        shown = program.ends()
    finally:
        program.close()
    assert re.search(r"^Installed 1 package in \d+", shown, re.M)
    assert "pond==1" not in shown


def test_interrupted(python: Path, index: SlowIndex, tmp_path: Path) -> None:
    """Ctrl-C ends it at once, with a shell's status for it: pip does not try then."""
    command = f"exec {python} {SCRIPT} --force-reinstall pond"
    program = Program(command, tmp_path, {**environment(index, tmp_path), "TERM": "xterm"})
    try:
        wait_until(lambda: "MiB/" in program.screen())
        shown = program.ends(signal.SIGINT)
        assert program.child.returncode == 130
        assert "pip" not in shown
    finally:
        program.close()


def test_without_a_terminal(python: Path, index: SlowIndex, tmp_path: Path) -> None:
    """A line for each large file, none for each library."""
    index.go.set()
    done = runs(python, environment(index, tmp_path), "--force-reinstall", "pond")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^Downloading pond \([\d.]+MiB\)$", done.stdout, re.M)
    assert done.stdout.splitlines()[-1].startswith("Installed 1 package in ")
    assert "\x1b" not in done.stdout


def test_pip_tries_where_uv_fails(python: Path, index: SlowIndex, tmp_path: Path) -> None:
    """Both say why they cannot."""
    failed = runs(python, environment(index, tmp_path), "pond==7")
    assert failed.returncode == 1
    uv, _, pip = failed.stdout.partition("uv could not do it: pip tries, which takes some minutes")
    assert "there is no version of pond==7" in uv
    assert "No matching distribution found for pond==7" in pip


def test_without_uv(index: SlowIndex, tmp_path: Path) -> None:
    """An index that has no uv, or none for this machine."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    index.go.set()
    python = tmp_path / "venv" / "bin" / "python"
    done = runs(python, environment(index, tmp_path), "pond")
    assert done.returncode == 0, done.stdout
    assert "uv cannot be had: pip installs, which takes some minutes" in done.stdout
    assert "Successfully installed pond-1" in done.stdout


def test_what_pip_is_configured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv gets it all, and each time from the place that pip would listen to."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = http://a.test/simple\ntimeout = 7\ncert = /a/file\n"
        f"trusted-host = a.test\nfind-links = {there}\n    {tmp_path}/missing\n"
        "[install]\ntimeout = 8\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "of the machine"))
    links = ["--find-links", str(there)]
    trusted = ["--allow-insecure-host", "a.test"]
    settings = install.pip_settings()
    assert install.uv_options(settings) == [
        *("--default-index", "http://a.test/simple"),
        *links,
        *trusted,
    ]
    variables = install.uv_environment(settings)
    assert (variables["UV_HTTP_TIMEOUT"], variables["SSL_CERT_FILE"]) == ("8", "/a/file")

    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://b.test/simple file://{there}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    best = ["--index-strategy", "unsafe-best-match"]
    assert install.uv_options(install.pip_settings()) == [
        *("--index", "http://a.test/simple", "--index", "http://b.test/simple"),
        *("--default-index", f"file://{there}", *best, *links, *trusted, "--no-index"),
    ]
