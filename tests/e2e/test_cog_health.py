"""A runner's own healthcheck(), as the router tells of it and acts on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import ROOT, Service, running_service
from tests.package_copies import packages_in
from tests.waiting import wait_until

MOODY = ROOT / "tests" / "packages" / "moody"
PREDICTIONS = "/models/moody/predictions"


def packages_with(folder: Path, mood: str) -> Path:
    """The package, its health as `mood` from the start."""
    packages = packages_in(folder / "packages", "moody")
    (packages / "callme.toml").write_text(f'[models.moody.env]\nMOODY = "{mood}"\n')
    return packages


def health(service: Service) -> dict[str, Any]:
    """The health-check's answer."""
    answer = service.http.get("/models/moody/health-check")
    assert answer.status_code == 200
    view: dict[str, Any] = answer.json()
    return view


def status_is(service: Service, *statuses: str) -> Callable[[], dict[str, Any] | None]:
    """The health-check's answer once it has one of these statuses."""

    def view() -> dict[str, Any] | None:
        seen = health(service)
        return seen if seen["status"] in statuses else None

    return view


def be(service: Service, mood: str, last_s: float = 0) -> httpx.Response:
    """A prediction that changes the model's mood."""
    body = {"input": {"mood": mood, "last_s": last_s}}
    return httpx.post(f"{service.url}{PREDICTIONS}", json=body, timeout=240)


@pytest.mark.parametrize(
    ("mood", "text"),
    [
        ("no", "Healthcheck failed: user-defined healthcheck returned False"),
        ("raise", "Healthcheck failed: RuntimeError: the weights are gone"),
        ("hang", "Healthcheck failed: user-defined healthcheck timed out after 5.0 seconds"),
    ],
)
def test_a_model_that_is_not_well(tmp_path: Path, mood: str, text: str) -> None:
    """UNHEALTHY with its text; a prediction waits, the model is restarted, and it runs."""
    settings = {"CALLME_UNHEALTHY_TO_RESTART_S": "2"}
    with running_service(packages_with(tmp_path, "well"), tmp_path / "state", settings) as service:
        first = be(service, mood).json()
        assert first["status"] == "succeeded", first
        seen = wait_until(status_is(service, "UNHEALTHY"))
        assert seen["user_healthcheck_error"] == text
        view = service.model("moody")
        assert (view["state"], view["problem"]) == ("unhealthy", text)
        assert service.http.get("/ready").json()["models"] == {"moody": "unhealthy"}
        again = be(service, "well").json()
        assert again["status"] == "succeeded", again
        assert again["output"] != first["output"], "the same process"
        seen = wait_until(status_is(service, "READY"))
        assert "user_healthcheck_error" not in seen
        assert service.model("moody")["crashes"] == 1


def test_a_model_that_is_well_again(tmp_path: Path) -> None:
    """What runs on it goes on, and who waits is served by the same process."""
    settings = {"CALLME_UNHEALTHY_TO_RESTART_S": "1"}
    with running_service(packages_with(tmp_path, "well"), tmp_path / "state", settings) as service:
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(be(service, "no", last_s=15)))
        thread.start()
        wait_until(status_is(service, "UNHEALTHY"))
        assert service.model("moody")["running"]
        waits = threading.Thread(target=lambda: answers.append(be(service, "well")))
        waits.start()
        wait_until(lambda: service.model("moody")["queue"])
        assert health(service)["status"] == "UNHEALTHY"
        thread.join(240)
        waits.join(240)
        assert [a.json()["status"] for a in answers] == ["succeeded"] * 2


def test_one_that_is_never_well(tmp_path: Path) -> None:
    """Its set-up has succeeded, and it runs nothing. It is restarted once, then it is DEFUNCT,
    and callers learn why."""
    settings = {"CALLME_UNHEALTHY_TO_RESTART_S": "2", "CALLME_PRELOAD": "moody"}
    with running_service(packages_with(tmp_path, "no"), tmp_path / "state", settings) as service:
        seen = wait_until(status_is(service, "UNHEALTHY"))
        assert seen["setup"]["status"] == "succeeded"
        wait_until(status_is(service, "DEFUNCT"))
        assert service.model("moody")["loads"] == 2
        answer = service.http.post("/moody", files={"mood": (None, "well")})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert "healthcheck returned False" in answer.json()["error"]["message"]
