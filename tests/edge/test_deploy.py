"""The real Supabase CLI deploys the function to a stand-in for the Management API."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest
from box import parse_parts
from deno_server import FUNCTION, ROOT, find_deno, plain_env
from npm_tools import SUPABASE_CLI, npm_binary

PROJECT = "abcdefghijklmnopqrst"
TOKEN = "sbp_" + "0" * 40  # the shape the CLI asks for, not a key


Answers = Callable[[str, str, bytes], tuple[int, object] | None]


@dataclass
class Platform:
    """What the stand-in was asked. `answers`: by method, path below the project and body; None
    leaves it to the stand-in."""

    url: str
    requests: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    answers: Answers = lambda *_: None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    platform: Platform


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, {"id": PROJECT, "ref": PROJECT, "name": "n", "status": "ACTIVE_HEALTHY"})

    def do_POST(self) -> None:
        deployed = {"id": "1", "slug": "backend_server", "name": "backend_server", "version": 1}
        self._answer(201, {**deployed, "status": "ACTIVE", "created_at": 1, "updated_at": 1})

    def do_PATCH(self) -> None:
        self._answer(200, {})

    def do_PUT(self) -> None:
        self._answer(200, [])

    def _answer(self, status: int, document: object) -> None:
        kind = self.headers.get("Content-Type", "")
        platform = cast(_Server, self.server).platform
        platform.requests.append((self.command, self.path, kind, self._body()))
        below = self.path.removeprefix(f"/v1/projects/{PROJECT}/")
        if own := platform.answers(self.command, below, platform.requests[-1][3]):
            status, document = own
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args: object) -> None:
        """Silent: a test prints what it needs."""


@contextmanager
def running_platform() -> Iterator[Platform]:
    """A stand-in for Supabase's Management API on a free loopback port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.platform = Platform(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def import_graph() -> set[str]:
    """The local modules that index.ts reaches, as Deno itself resolves them."""
    done = subprocess.run(
        [str(find_deno()), "info", "--json", "index.ts"],
        cwd=FUNCTION,
        env=plain_env(),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = json.loads(done.stdout)["modules"]
    return {Path(module["local"]).name for module in modules if "local" in module}


def checkout(platform: Platform, folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """A copy of the project, a profile that leads to the stand-in, and an environment."""
    project = folder / "project"
    shutil.copytree(ROOT / "supabase", project / "supabase")
    home = folder / "home"
    home.mkdir()
    urls = ("api_url", "dashboard_url", "docs_url")
    lines = [
        "name: local",
        *(f"{name}: {platform.url}" for name in urls),
        "project_host: 127.0.0.1",
    ]
    profile = folder / "profile.yaml"
    profile.write_text("\n".join(lines) + "\n")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SUPABASE_ACCESS_TOKEN": TOKEN,
        "SUPABASE_PROJECT_ID": PROJECT,
        "DO_NOT_TRACK": "1",
        "SUPABASE_TELEMETRY_DISABLED": "1",
    }
    return project, profile, env


def run(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def deploy(cli: Path, platform: Platform, folder: Path) -> str:
    """Runs `supabase functions deploy` on a copy of the project under `folder`."""
    project, profile, env = checkout(platform, folder)
    arguments = ["functions", "deploy", "backend_server", "--use-api", "--yes"]
    done = run([str(cli), "--profile", str(profile), *arguments], project, env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_the_real_cli_uploads_exactly_the_import_graph(tmp_path: Path) -> None:
    """19: one deploy request, with index.ts, what it imports and deno.json: no test, no README."""
    cli = npm_binary(SUPABASE_CLI, "supabase")
    with running_platform() as platform:
        deploy(cli, platform, tmp_path)
    posts = [request for request in platform.requests if request[0] == "POST"]
    assert [path for _, path, _, _ in posts] == [
        f"/v1/projects/{PROJECT}/functions/deploy?slug=backend_server"
    ]
    parts = parse_parts(posts[0][2], posts[0][3])
    metadata = json.loads(next(part.data for part in parts if part.name == "metadata"))
    uploaded = {str(part.filename): part.data for part in parts if part.name == "file"}
    prefix = "supabase/functions/backend_server/"
    assert set(uploaded) == {prefix + name for name in import_graph() | {"deno.json"}}
    for name, content in uploaded.items():
        assert content == (ROOT / name).read_bytes(), name
    assert metadata["entrypoint_path"] == f"{prefix}index.ts"
    assert metadata["import_map_path"] == f"{prefix}deno.json"
    assert metadata["verify_jwt"] is False
    assert metadata["name"] == "backend_server"


@pytest.mark.timeout(400)
def test_callme_deploys_by_the_real_cli(tmp_path: Path) -> None:
    """`callme supabase deploy` finds the CLI on PATH and gives it project and token."""
    cli = npm_binary(SUPABASE_CLI, "supabase")
    callme = Path(sys.executable).parent / "callme"
    with running_platform() as platform:
        project, profile, env = checkout(platform, tmp_path)
        del env["SUPABASE_PROJECT_ID"]
        env["PATH"] = f"{cli.parent}:{env['PATH']}"
        arguments = ["supabase", "deploy", "--profile", str(profile), "--folder", str(project)]
        told = run([str(callme), *arguments], project, env)
        assert (told.returncode, "no project is set" in told.stderr) == (2, True), told.stderr
        assert platform.requests == []
        done = run([str(callme), *arguments, "--project", PROJECT], project, env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path for method, path, *_ in platform.requests if method == "POST"] == [
        f"/v1/projects/{PROJECT}/functions/deploy?slug=backend_server"
    ]
