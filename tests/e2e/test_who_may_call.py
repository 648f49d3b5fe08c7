"""Without a key this machine alone is served: seen over real sockets, by every way in."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.service import Service, running_service

PROXIED = (
    {"Cf-Ray": "8f0a1b2c3d4e5f60-FRA"},
    {"Cf-Connecting-Ip": "203.0.113.7"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Host": "localhost"},
    {"X-Real-Ip": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"Via": "1.1 proxy"},
)
PATHS = ("/status", "/ready", "/metrics", "/docs", "/v1/models", "/predictions/x")


@pytest.fixture(scope="module")
def service(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A router without a key that listens on every address of this machine."""
    state = tmp_path_factory.mktemp("keyless") / "state"
    argv = [str(Path(sys.executable).parent / "uvicorn"), "api:app", "--host", "0.0.0.0"]
    with running_service(echo_packages, state, argv=argv) as running:
        yield running


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
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


def test_another_address_of_this_machine_is_refused(service: Service) -> None:
    """A request to the machine's own address on a network has that address as its peer."""
    addresses = own_addresses()
    if not addresses:
        pytest.skip("needs an address that is not loopback, such as a container's")
    port = service.url.rpartition(":")[2]
    for address in addresses:
        with httpx.Client(base_url=f"http://{address}:{port}", timeout=30) as http:
            for path in PATHS:
                assert http.get(path).status_code == 403, (address, path)
            posted = http.post("/echo", files={"text": (None, "x")})
            assert posted.json()["error"]["code"] == "forbidden"
            # A Host that claims to be local changes nothing.
            assert http.get("/status", headers={"Host": "localhost"}).status_code == 403
            assert http.get("/health").status_code == 200
