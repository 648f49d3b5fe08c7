"""`callme` against a running router and without one, run as a person runs it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner, Result

from router.cli import app
from tests.e2e.service import ROOT, Service, running_service
from tests.package_copies import packages_in
from tests.waiting import free_port, wait_until


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The echo package."""
    folder = tmp_path_factory.mktemp("packages")
    return packages_in(folder, "echo")


@pytest.fixture(scope="module")
def service(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A router of it a key wanted from everybody."""
    state = tmp_path_factory.mktemp("cli") / "state"
    env = {"CALLME_ADMIN_KEYS": f"ops:{OPS_KEY}", "CALLME_CORS_ORIGINS": APP}
    with running_service(packages, state, env) as running:
        yield running


OPS_KEY = "0123456789abcdef0123456789abcdef"
APP = "https://app.example.com"
Callme = Callable[..., Result]


def environment(packages: Path, state: Path, port: int) -> dict[str, str]:
    """What the command finds the router by: settings, and no key."""
    own = {"CALLME_PACKAGES_DIR": str(packages), "CALLME_STATE_DIR": str(state)}
    return {**own, "CALLME_PORT": str(port), "COLUMNS": "200"}


@pytest.fixture
def callme(service: Service, packages: Path, monkeypatch: pytest.MonkeyPatch) -> Callme:
    """`callme …` on the service's machine, as its user; in this process, to be quick."""
    port = int(service.url.rpartition(":")[2])
    for name, value in environment(packages, service.state, port).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def told(done: Result) -> Any:
    """The JSON on stdout of a command that went well."""
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_predict_on_a_running_router(callme: Callme, tmp_path: Path) -> None:
    """Text, numbers, a file and a list reach the model; the output is JSON, or in a file. No key
    is given: the router's own local one is found."""
    (tmp_path / "a.bin").write_bytes(b"\0\1\2")
    given = ("-i", "text=a=b", "-i", "number=0.5", "-i", f"file=@{tmp_path / 'a.bin'}")
    done = callme("predict", "echo", *given, "-i", "tags=x", "-i", "tags=y")
    output = told(done)
    assert (output["text"], output["number"], output["file_bytes"]) == ("a=b", 0.5, 3)
    assert output["file_sha256"] == hashlib.sha256(b"\0\1\2").hexdigest()
    done = callme("predict", "echo", "-o", str(tmp_path / "out.json"))
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())["text"] == "hello"
    detailed = told(callme("predict", "echo", "--json", "{}"))
    assert (detailed["output"]["text"], detailed["status"]) == ("hello", "succeeded")
    assert len(detailed["id"]) >= 20


def test_a_refused_input_is_told(callme: Callme) -> None:
    """The router's own words on stderr; for a script, its error on stdout."""
    done = callme("predict", "echo", "-i", "number=many")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "number" in done.stderr
    done = callme("predict", "echo", "--json", '{"number": "many"}')
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (1, "invalid_input")
    done = callme("predict", "nosuch", "--json", "{}")
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (1, "unknown_model")


def test_looking_at_a_running_router(callme: Callme) -> None:
    """models, status and logs, for a person and for a script."""
    told(callme("predict", "echo"))
    assert told(callme("models", "--json"))["echo"]["state"] == "ready"
    assert "ready" in callme("models").stdout
    assert told(callme("status", "--json"))["models"]["echo"]["loads"] == 1
    assert "echo" in callme("status").stdout
    lines = told(callme("logs", "echo", "--json"))
    assert lines == callme("logs", "echo").stdout.splitlines()
    assert callme("logs", "nosuch").exit_code == 1


def test_keys_act_on_a_running_router(service: Service, callme: Callme) -> None:
    """A new key opens at once, is bounded as it was told, and a revoked one is refused."""
    made = told(callme("keys", "create", "app", "--per-minute", "3", "--json"))
    headers = {"Authorization": f"Bearer {made['key']}"}

    def look() -> httpx.Response:
        return service.http.get("/ready", headers=headers)

    assert [look().status_code for _ in range(4)] == [200, 200, 200, 429]
    assert look().json()["error"]["code"] == "rate_limited"
    assert 1 <= int(look().headers["Retry-After"]) <= 61
    assert callme("keys", "revoke", "app").exit_code == 0
    assert look().status_code == 401


def test_an_ordinary_key_does_not_look_at_all(service: Service, callme: Callme) -> None:
    """What concerns every holder is an admin's: the command says which key it needs."""
    keys = {
        name: told(callme("keys", "create", name, *more, "--json"))["key"]
        for name, more in (("reader", ()), ("boss", ("--admin",)))
    }
    for command in (("status",), ("models",), ("logs", "echo")):
        asked = (*command, "--url", service.url, "--key")
        refused = callme(*asked, keys["reader"])
        assert (refused.exit_code, "keys create NAME --admin" in refused.stderr) == (1, True)
        assert callme(*asked, keys["boss"]).exit_code == 0


def test_only_the_machines_own_user_is_let_in(service: Service, callme: Callme) -> None:
    """An address that was typed gets no key of this machine unless one is given."""
    asked = ("status", "--url", service.url)
    done = callme(*asked)
    assert (done.exit_code, "callme keys create" in done.stderr) == (1, True)
    given = ("--key", OPS_KEY, "--json")
    assert told(callme(*asked, *given))["models"]


def test_every_answer_tells_browsers(service: Service) -> None:
    """A listed page's preflight needs no key; refusals and answers can be read by it, and have
    the security headers; another page's are not."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "prefer"}
    granted = service.http.options("/echo", headers={"Origin": APP, **asked})
    assert granted.status_code == 200
    key = {"Authorization": f"Bearer {OPS_KEY}"}
    for path, headers, status in (
        ("/status", {}, 401),
        ("/status", key, 200),
        ("/no/such", key, 404),
        ("/docs", key, 200),
    ):
        answer = service.http.get(path, headers={"Origin": APP, **headers})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == APP
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "x-request-id" in answer.headers
        other = service.http.get(path, headers={"Origin": "https://evil.example", **headers})
        assert "access-control-allow-origin" not in other.headers


def test_predict_without_a_router_starts_the_package(packages: Path, tmp_path: Path) -> None:
    """By its folder; nothing is left running, and nothing is written."""
    (tmp_path / "tmp").mkdir()
    env = {
        **environment(packages, tmp_path / "state", free_port()),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    done = alone(env, packages, "./echo", "-i", "text=alone")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert output["text"] == "alone"
    wait_until(lambda: not psutil.pid_exists(output["pid"]))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "state").exists()


def test_a_package_that_does_not_start_is_told(packages: Path, tmp_path: Path) -> None:
    """By its name; its own last words, and code 1."""
    env = environment(packages, tmp_path / "state", free_port())
    done = alone({**env, "ECHO_SETUP_ERROR": "no weights here"}, ROOT, "echo")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no weights here" in done.stderr
    assert done.stderr.count("Traceback") == 1  # the model's, none of the command
    assert "router/cli" not in done.stderr


def alone(env: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`callme predict …` in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    return subprocess.run(
        [str(Path(sys.executable).parent / "callme"), "predict", *arguments],
        env={**clean, **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_model_gets_no_token_of_another_platform(packages: Path, tmp_path: Path) -> None:
    """Neither the router's own variables nor those that open Supabase or Cloudflare."""
    package = tmp_path / "spy"
    package.mkdir()
    (package / "cog.yaml").write_text("run: run.py:Runner\n")
    (package / "run.py").write_text(
        "import os\n\nfrom cog import BaseRunner\n\n\n"
        "class Runner(BaseRunner):\n"
        "    def run(self) -> str:\n"
        '        return " ".join(sorted(os.environ))\n'
    )
    env = environment(packages, tmp_path / "state", free_port())
    secrets = {"SUPABASE_ACCESS_TOKEN": "x", "TUNNEL_TOKEN": "y", "CALLME_KEY": "z", "MINE": "m"}
    done = alone({**env, **secrets}, tmp_path, "./spy")
    assert done.returncode == 0, done.stderr
    seen = set(done.stdout.split())
    assert "MINE" in seen
    assert not seen & (secrets.keys() - {"MINE"})
