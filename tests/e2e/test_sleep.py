"""Models that sleep in main memory, through the whole router. Without a GPU, the memory that sleeps
is main memory too; the way is the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.service import Service, kill, running_service
from tests.package_copies import copy_package
from tests.waiting import wait_until

PACKAGES = Path(__file__).resolve().parents[1] / "packages"
DREAMER = PACKAGES / "dreamer"
LONG_S = 200.0

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The same package twice."""
    for name in ("dreamer", "second"):
        copy_package("dreamer", tmp_path / "packages" / name)
    return tmp_path / "packages"


def ask(service: Service, name: str, **asked: object) -> str:
    """The output of one prediction."""
    form = {field: (None, str(value)) for field, value in {"delay_s": 0, **asked}.items()}
    answer = service.http.post(f"/{name}", files=form, timeout=LONG_S)
    if answer.status_code == 202:
        return str(service.when_ended(answer)["output"])
    assert answer.status_code == 200, answer.text
    return str(answer.json())


def sleep_of(service: Service, name: str) -> dict[str, Any]:
    """What /status says of its sleep."""
    view: dict[str, Any] = service.model(name).get("sleep", {})
    return view


def worker(service: Service) -> psutil.Process:
    """The only worker."""
    (found,) = service.workers()
    return found


def wait_for(service: Service, name: str, *states: str) -> None:
    """Until it is in one of these states."""
    wait_until(lambda: service.model(name)["state"] in states, LONG_S)


@contextlib.contextmanager
def asked(service: Service, name: str = "dreamer") -> Iterator[list[str]]:
    """A prediction that runs beside the block; its answer is there after it."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(ask(service, name)))
    thread.start()
    yield answers
    thread.join(LONG_S)


def test_two_models_take_turns(packages: Path, tmp_path: Path) -> None:
    """Together they do not fit. Each is loaded once; after that they fall asleep and wake, also for
    many callers at a time, and answer as before."""
    env = {
        "CALLME_SLEEP": "cpu",
        "DREAMER_MIB": "200",
        "CALLME_DEFAULT_FOOTPRINT_BYTES": str(450 << 20),
        # Each holds some 380 MiB awake and some 180 asleep.
        "CALLME_MEMORY_LIMIT_BYTES": str(660 << 20),
        "CALLME_MIN_RESIDENCY_S": "1",
    }
    with running_service(packages, tmp_path / "state", env) as service:
        before = ask(service, "dreamer")
        assert ask(service, "second") == before
        changed = ask(service, "dreamer", do="merge")
        assert changed != before
        assert ask(service, "second") == before
        assert ask(service, "dreamer") == changed
        answers: list[tuple[str, str]] = []

        def client(name: str) -> None:
            answers.append((name, ask(service, name)))

        threads = [
            threading.Thread(target=client, args=(name,)) for name in ("dreamer", "second") * 2
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join(LONG_S)
        assert sorted(answers) == [("dreamer", changed)] * 2 + [("second", before)] * 2
        for name in ("dreamer", "second"):
            assert service.model(name)["loads"] == 1, service.log()[-3000:]
            view = sleep_of(service, name)
            assert view["wake"]["bytes"] > 200 << 20, view
            assert view["copies_bytes"] >= view["frees_bytes"] > 200 << 20, view
            assert 0 < view["wake"]["of_best"] <= 1
            assert not view["suspended"]
            assert "GPU" in view["suspend_refusal"]
        memory = service.http.get("/metrics", headers=admin(service)).text
        assert 'callme_model_moved_bytes_total{model="second",move="wake"}' in memory


def admin(service: Service) -> dict[str, str]:
    """As this machine's own programs call."""
    return {"Authorization": f"Bearer {(service.state / 'local_key').read_text()}"}


def test_killed_asleep_and_half_way(packages: Path, tmp_path: Path) -> None:
    """Whenever the worker is killed, the next prediction is answered by a new one; a hook that is
    gone is no reason to fail."""
    shutil.rmtree(packages / "second")
    env = {
        "CALLME_SLEEP": "cpu",
        "CALLME_IDLE_TO_SLEEP_S": "0.5",
        "CALLME_MIN_RESIDENCY_S": "0.1",
    }
    with running_service(packages, tmp_path / "state", env) as service:
        before = ask(service, "dreamer")

        # It arrives asleep, and waits for the wake.
        wait_for(service, "dreamer", "asleep")
        assert ask(service, "dreamer") == before
        assert service.model("dreamer")["loads"] == 1

        # Asleep.
        wait_for(service, "dreamer", "asleep")
        kill([worker(service)])
        wait_for(service, "dreamer", "stopped", "failed")
        assert ask(service, "dreamer") == before

        # While it wakes, with a prediction that waits for it.
        wait_for(service, "dreamer", "asleep")
        victim = worker(service)
        os.kill(victim.pid, signal.SIGSTOP)
        with asked(service) as answers:
            wait_for(service, "dreamer", "waking")
            kill([victim])
        assert answers == [before]

        # While it falls asleep.
        victim = worker(service)
        os.kill(victim.pid, signal.SIGSTOP)
        wait_for(service, "dreamer", "suspending")
        with asked(service) as answers:
            kill([victim])
        assert answers == [before]

        # Its socket is gone: it is stopped instead.
        crashes = service.model("dreamer")["crashes"]
        for socket in (service.state / "tmp").glob("*/callme-control.sock"):
            socket.unlink()
        wait_for(service, "dreamer", "stopped")
        assert "hook does not answer" in sleep_of(service, "dreamer")["refusal"]
        assert ask(service, "dreamer") == before
        assert service.model("dreamer")["crashes"] == crashes


def test_no_hook_or_one_that_hangs(packages: Path, tmp_path: Path) -> None:
    """The model is stopped and started, and nothing that was asked is lost. A model without torch
    has nothing that could sleep."""
    shutil.rmtree(packages / "second")
    with (packages / "dreamer" / "cog.yaml").open("a") as config:
        config.write("environment:\n  - DREAMER_MIB=8\n")
    shutil.copytree(packages / "dreamer", packages / "hookless")
    with (packages / "hookless" / "cog.yaml").open("a") as config:
        config.write("  - PYTHONPATH=\n")  # where the hook would be
    copy_package("echo", packages / "echo")
    env = {
        "CALLME_SLEEP": "cpu",
        "CALLME_IDLE_TO_SLEEP_S": "0.5",
        "CALLME_MIN_RESIDENCY_S": "0.1",
    }
    with running_service(packages, tmp_path / "state", env) as service:
        before = ask(service, "dreamer", do="hang")
        wait_for(service, "dreamer", "suspending")
        with asked(service) as hung:  # it waits until the hook has had its time
            first = ask(service, "hookless")
            wait_for(service, "hookless", "stopped")
            with asked(service, "hookless") as hookless:
                answer = service.http.post("/echo", files={"text": (None, "hi")}, timeout=LONG_S)
                assert answer.status_code == 200, answer.text
                wait_for(service, "echo", "stopped")
        assert hung == [before]
        assert hookless == [first]
        assert first == before
        for name, why in (
            ("hookless", "hook does not answer"),
            ("echo", "it does not use torch"),
        ):
            assert why in sleep_of(service, name)["refusal"]
        assert '"model not put to sleep"' in service.log()
        assert [service.model(name)["loads"] for name in ("dreamer", "hookless")] == [2, 2]
        assert [service.model(name)["crashes"] for name in ("dreamer", "hookless")] == [0, 0]
