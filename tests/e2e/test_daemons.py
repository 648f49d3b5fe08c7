"""Whatever a model starts ends with it, also what has made itself a daemon."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.service import Service, command_line, kill, running_service
from tests.package_copies import packages_in
from tests.waiting import wait_until


@pytest.fixture
def name() -> Iterator[str]:
    """What the daemons of one test are called; none is left after it."""
    name = f"daemon-{secrets.token_hex(8)}"
    yield name
    kill(daemons(name))


def daemons(name: str) -> list[psutil.Process]:
    """Those that live, of a name's beginning."""
    found = []
    for process in psutil.process_iter():
        line = command_line(process)
        if line and line[-1].startswith(name):
            found.append(process)
    return found


def served(tmp_path: Path, name: str) -> Path:
    """A folder with the package."""
    packages = packages_in(tmp_path / "packages", "daemon")
    (packages / "callme.toml").write_text(f'[models.daemon.env]\nDAEMON_NAME = "{name}"\n')
    return packages


def run(service: Service, clear: bool) -> None:
    """One prediction, which leaves a daemon behind."""
    answer = service.http.post("/daemon", files={"clear": (None, str(clear).lower())})
    assert answer.status_code == 200, answer.text


def kill_router(service: Service) -> None:
    """kill -9."""
    service.child.kill()
    service.child.wait()


def kill_router_and_server(service: Service) -> None:
    """Both at once, as for want of memory."""
    servers = service.servers()
    service.child.kill()
    kill(servers)
    service.child.wait()


ENDS: list[Callable[[Service], object]] = [
    lambda service: service.stop(signal.SIGTERM),
    kill_router,
]


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_nothing_outlives_the_router(
    tmp_path: Path, name: str, end: Callable[[Service], object], clear: bool
) -> None:
    """SIGTERM or kill -9: the daemons of set-up and run end, those without an environment too."""
    with running_service(served(tmp_path, name), tmp_path / "state") as service:
        run(service, clear)
        wait_until(lambda: len(daemons(name)) == 2)
        end(service)
        wait_until(lambda: not daemons(name))


def test_what_router_and_server_have_left(tmp_path: Path, name: str) -> None:
    """Both are killed at once, so nobody is there to see to it but the next router."""
    packages = served(tmp_path, name)
    with running_service(packages, tmp_path / "state") as service:
        run(service, clear=False)
        wait_until(lambda: len(daemons(name)) == 2)
        kill_router_and_server(service)
    with running_service(packages, tmp_path / "state"):
        assert not daemons(name)


@pytest.mark.parametrize("who", ["workers", "servers"])
def test_nothing_outlives_a_model_that_crashes(tmp_path: Path, name: str, who: str) -> None:
    """Its worker or its server is killed: what it had started goes, and no zombie stays with the
    router or the model's server."""
    with running_service(served(tmp_path, name), tmp_path / "state") as service:
        run(service, clear=False)
        before = wait_until(lambda: len(found := daemons(name)) == 2 and found)
        kill(getattr(service, who)())
        wait_until(lambda: not any(p.is_running() for p in before))
        run(service, clear=False)
        kill(daemons(name))
        wait_until(lambda: not zombies(service))


def zombies(service: Service) -> list[psutil.Process]:
    """Ended processes below the router that nobody has waited for."""
    found = []
    for process in service.descendants():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
