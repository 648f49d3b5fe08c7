"""Without a key this machine alone is served: seen over real sockets, by every way in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from router.cli import app
from tests.e2e.service import ROOT, Service, running_service
from tests.waiting import free_port

PROXIED = (
    {"Cf-Ray": "8f0a1b2c3d4e5f60-FRA"},
    {"Cf-Connecting-Ip": "203.0.113.7"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Host": "localhost"},
    {"X-Real-Ip": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"Via": "1.1 proxy"},
)
PATHS = ("/status", "/ready", "/metrics", "/openapi.json", "/v1/models", "/predictions/x")


@pytest.fixture(scope="module")
def service(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A router without a key that listens on every address of this machine."""
    state = tmp_path_factory.mktemp("keyless") / "state"
    argv = [str(Path(sys.executable).parent / "uvicorn"), "api:app", "--host", "0.0.0.0"]
    with running_service(echo_packages, state, argv=argv) as running:
        yield running


def callme(state: Path, *arguments: str) -> str:
    """What `callme keys …` prints for that state folder."""
    done = CliRunner().invoke(app, ["keys", *arguments], env={"CALLME_STATE_DIR": str(state)})
    assert done.exit_code == 0, done.stderr
    return done.stdout


def own_addresses() -> list[str]:
    """This machine's IPv4 addresses that are not loopback."""
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]


@pytest.mark.parametrize("path", PATHS)
def test_loopback_works_and_a_proxy_does_not(service: Service, path: str) -> None:
    """Whatever the proxy says of where it comes from."""
    assert service.http.get(path).status_code in (200, 404)
    for headers in PROXIED:
        refused = service.http.get(path, headers=headers)
        body = refused.json()
        code = body["code"] if path.startswith("/v1/") else body["error"]["code"]
        assert (refused.status_code, code) == (403, "forbidden")


def test_closed_stays_closed(echo_packages: Path, tmp_path: Path) -> None:
    """A running router and its next start serve nobody once the last key is revoked, whatever
    comes from loopback without a header, as `ssh -R` does; until a person says otherwise."""
    state = tmp_path / "state"
    with running_service(echo_packages, state) as service:
        assert service.http.get("/ready").status_code == 200
        key = callme(state, "create", "web").strip()
        callme(state, "revoke", "web")
        for path in PATHS:
            assert service.http.get(path).status_code == 401
        old = {"Authorization": f"Bearer {key}"}
        assert service.http.get("/ready", headers=old).status_code == 401
        assert service.model("echo")["state"]  # this user's own programs have the local key
    with running_service(echo_packages, state) as service:
        assert service.http.get("/ready").status_code == 401
        assert "nobody is served" in service.log()
        callme(state, "open-to-this-machine")
        assert service.http.get("/ready").status_code == 200
        refused = service.http.get("/ready", headers={"X-Forwarded-For": "203.0.113.7"})
        assert refused.status_code == 403


def test_a_start_with_keys_that_others_may_write(echo_packages: Path, tmp_path: Path) -> None:
    """Refused in a sentence that names the file and the command."""
    state = tmp_path / "state"
    callme(state, "create", "web")
    (state / "keys.json").chmod(0o666)
    env = {"CALLME_PACKAGES_DIR": str(echo_packages), "CALLME_STATE_DIR": str(state)}
    done = subprocess.run(
        [Path(sys.executable).parent / "uvicorn", "api:app", "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode != 0
    assert f"Cannot start: others may write {state}/keys.json" in done.stderr
    assert f"chmod go-w {state}/keys.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_address_of_this_machine_is_refused(service: Service) -> None:
    """A request to the machine's own address on a network has that address as its peer."""
    addresses = own_addresses()
    if not addresses:
        pytest.skip("needs an address that is not loopback, such as a container's")
    port = service.url.rpartition(":")[2]
    for address in addresses:
        with httpx.Client(base_url=f"http://{address}:{port}", timeout=240) as http:
            for path in PATHS:
                assert http.get(path).status_code == 403, (address, path)
            posted = http.post("/echo", files={"text": (None, "x")})
            assert posted.json()["error"]["code"] == "forbidden"
            # A Host that claims to be local changes nothing.
            assert http.get("/status", headers={"Host": "localhost"}).status_code == 403
            assert http.get("/health").status_code == 200
