"""Which line failed: told to the operator and the owner, and never to a web client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import Service, running_service
from tests.waiting import wait_until

OPS_KEY = "0123456789abcdef0123456789abcdef"
WEB_KEY = "fedcba9876543210fedcba9876543210"
WEB = {"Authorization": f"Bearer {WEB_KEY}"}
OPS = {"Authorization": f"Bearer {OPS_KEY}"}
CAPTURED: Any = {"capture_output": True, "text": True}
ASYNC = {"Prefer": "respond-async"}
TOKEN = "tok-3f9a-the-callers-own"  # noqa: S105

HELPER = """
import json


def read(text):
    return json.loads(text)
"""
RUNS = """
import threading
from collections.abc import Iterator

from cog import BaseRunner, Input, Secret

from helper import read


class InvalidInput(ValueError):
    pass


class Runner(BaseRunner):
    def run(
        self,
        how: str = Input(default="library"),
        number: int = Input(default=2),
        token: Secret = Input(default=None),
    ) -> Iterator[str]:
        print("it begins", number)
        if how == "thread":
            thread = threading.Thread(target=read, args=("{",), name="reader")
            thread.start()
            thread.join()
        elif how == "refuses":
            raise InvalidInput("Cannot use 'how'")
        elif how == "handles":
            try:
                self.run(how="refuses")
                read("{")
            except ValueError:
                yield "handled"
        elif how == "secret":
            raise RuntimeError(f"401 for {token.get_secret_value()}")
        else:
            read("{")
        yield "well"
"""
RUNS_ASYNC = """
import asyncio

from cog import BaseRunner, Input

from helper import read


class Runner(BaseRunner):
    async def run(self, how: str = Input(default="gather")) -> str:
        if how == "sleep":
            await asyncio.sleep(60)
        await asyncio.gather(asyncio.to_thread(read, "{"))
        return "well"
"""
SETS_UP = """
from cog import BaseRunner


class Runner(BaseRunner):
    def setup(self) -> None:
        print("it loads")
        self.name = {"a": 1}["weights"]

    def run(self) -> str:
        return self.name
"""
IMPORTS = """
from cog import BaseRunner

import no_such_library
"""
SYNTAX = """
from cog import BaseRunner


class Runner(BaseRunner):
    def run(self) -> str:
        return str(1
"""
UNHEALTHY = """
from cog import BaseRunner


class Runner(BaseRunner):
    def healthcheck(self) -> bool:
        raise ValueError("the camera is off")

    def run(self) -> str:
        return "well"
"""
SOURCES = {
    "runs": RUNS,
    "runs_async": RUNS_ASYNC,
    "sets_up": SETS_UP,
    "imports": IMPORTS,
    "syntax": SYNTAX,
    "unhealthy": UNHEALTHY,
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package for each way to fail."""
    folder = tmp_path_factory.mktemp("packages")
    for name, source in SOURCES.items():
        (folder / name).mkdir()
        (folder / name / "cog.yaml").write_text('run: "run.py:Runner"\n')
        (folder / name / "run.py").write_text(source)
        (folder / name / "helper.py").write_text(HELPER)
    return folder


@pytest.fixture(scope="module")
def service(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A router of them, with a key for a web app and one for the operator."""
    state = tmp_path_factory.mktemp("tracebacks") / "state"
    env = {
        "CALLME_ADMIN_KEYS": f"ops:{OPS_KEY}",
        "CALLME_KEYS": f"web:{WEB_KEY}",
        "CALLME_UNHEALTHY_TO_RESTART_S": "3",  # several health checks, not a minute of them
    }
    with running_service(packages, state, env) as running:
        yield running


def post(
    service: Service, model: str, headers: dict[str, str] | None = None, /, **inputs: str
) -> httpx.Response:
    """The answer to a form with these inputs, as the edge function sends it."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
        for k, v in inputs.items()
    ]
    sent = {**WEB, **(headers or {}), "Content-Type": "multipart/form-data; boundary=b"}
    return service.http.post(f"/{model}", content="".join([*parts, "--b--\r\n"]), headers=sent)


def logs_of(service: Service, model: str) -> str:
    """What `callme logs MODEL` prints."""
    answer = service.http.get(f"/models/{model}/logs", headers=OPS)
    return "\n".join(answer.raise_for_status().json()["lines"])


def asked(service: Service, model: str, **inputs: str) -> httpx.Response:
    """The answer to a web app. It shows no code, no line and no file of the package."""
    answer = post(service, model, **inputs)
    for hidden in ("Traceback", "run.py", "helper.py", "json.loads", "raised", "\\u00a6", "¦"):
        assert hidden not in answer.text, answer.text
    return answer


def own_log(service: Service, model: str, **inputs: Any) -> str:
    """The log in Cog's answer to the same key."""
    answer = service.http.post(f"/models/{model}/predictions", json={"input": inputs}, headers=WEB)
    assert "logs" in answer.json(), answer.text
    return str(answer.json()["logs"])


IN_A_LIBRARY = """\
¦ raised at helper.py:6 in read: JSONDecodeError: Expecting property name enclosed in double \
quotes: line 1 column 2 (char 1)
¦ Traceback (most recent call last):
¦   File "run.py", line 37, in run
¦     read("{")
¦   File "helper.py", line 6, in read
¦     return json.loads(text)
"""
FOLDED = "¦   … 3 calls in Python, the last at json/decoder.py:"


def test_a_run_that_raises(service: Service) -> None:
    """The package's frames in full and a library's in one line: in the prediction's own log, and
    in the model's. The web app gets one sentence."""
    answer = asked(service, "runs")
    assert answer.json()["error"]["message"].startswith("The model failed: JSONDecodeError: Expect")
    log = own_log(service, "runs")
    assert log.startswith(f"it begins 2\n{IN_A_LIBRARY}"), log
    assert FOLDED in log
    assert IN_A_LIBRARY in logs_of(service, "runs")
    wait_until(lambda: '"at":"helper.py:6 in read"' in service.log())


def test_a_poll_by_the_web_app(service: Service) -> None:
    """The edge function passes on what it polls, so the log there has no traceback either."""
    accepted = post(service, "runs", ASYNC)
    url = accepted.headers["Location"]
    wait_until(lambda: service.http.get(url, headers=WEB).json()["status"] == "failed")
    assert service.http.get(url, headers=WEB).json()["logs"] == "it begins 2\n"
    assert IN_A_LIBRARY in service.http.get(url, headers=OPS).json()["logs"]


def test_what_is_no_failure_is_not_told(service: Service) -> None:
    """A refused input, an exception that the package handles, and a canceled run."""
    assert asked(service, "runs", how="refuses").status_code == 422
    assert own_log(service, "runs", how="refuses") == "it begins 2\n"
    assert own_log(service, "runs", how="handles") == "it begins 2\n"
    accepted = post(service, "runs_async", ASYNC, how="sleep")
    url = accepted.headers["Location"]
    wait_until(lambda: service.http.get(url, headers=WEB).json()["status"] == "processing")
    service.http.post(f"{url}/cancel", headers=WEB)
    wait_until(lambda: service.http.get(url, headers=WEB).json()["status"] == "canceled")
    assert "¦" not in service.http.get(url, headers=OPS).json()["logs"]


def test_threads_and_async_runs(service: Service) -> None:
    """An exception in a thread ends the thread only. That of an async run has the same form."""
    log = own_log(service, "runs", how="thread")
    assert "raised at helper.py:6 in read in thread 'reader': JSONDecodeError" in log
    log = own_log(service, "runs_async")
    assert "raised at helper.py:6 in read: JSONDecodeError" in log
    assert "in run\n¦     await asyncio.gather(" in log


def test_a_secret_in_an_exception(service: Service) -> None:
    """It is in no log."""
    assert "RuntimeError: 401 for **********" in own_log(service, "runs", how="secret", token=TOKEN)
    assert TOKEN not in logs_of(service, "runs")


def test_a_set_up_that_raises(service: Service) -> None:
    """The operator's sentence ends with the line, and what was printed before is there too."""
    error = asked(service, "sets_up").json()["error"]
    assert error["message"] == "Cannot start 'sets_up': its set-up failed: KeyError: 'weights'"
    said = service.model("sets_up")["last_failure"]
    assert said == "its set-up failed: KeyError: 'weights' (run.py:8 in setup)"
    log = logs_of(service, "sets_up")
    assert log.count("¦ raised at run.py:8 in setup: KeyError: 'weights'") == 1
    assert '¦     self.name = {"a": 1}["weights"]' in log
    health = service.http.get("/models/sets_up/health-check", headers=WEB)
    assert "¦" not in health.text
    assert "run.py" not in health.text


@pytest.mark.parametrize(
    ("model", "place", "reason"),
    [
        ("imports", "run.py:4", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("syntax", "run.py:7:19", "SyntaxError: '(' was never closed"),
    ],
)
def test_an_import_that_raises(service: Service, model: str, place: str, reason: str) -> None:
    """A syntax error has its column."""
    sentence = f"its runner cannot be read: {reason}"
    error = asked(service, model).json()["error"]
    assert error["message"] == f"Cannot read '{model}': {sentence}"
    assert service.model(model)["unreadable"] == f"{sentence} ({place})"
    assert f"¦ raised at {place}: {reason}" in logs_of(service, model)


def test_a_health_check_that_raises(service: Service) -> None:
    """Once, not at each of the checks that follow."""
    asked(service, "unhealthy")
    line = "¦ raised at run.py:7 in healthcheck: ValueError: the camera is off"
    wait_until(lambda: line in logs_of(service, "unhealthy"))
    asked(service, "unhealthy")
    assert logs_of(service, "unhealthy").count(line) == 1


def test_predict_shows_it(service: Service, packages: Path, tmp_path: Path) -> None:
    """On stderr, with the line in the last sentence; also without a running router."""
    command = [sys.executable, "-m", "router.cli", "predict"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    env |= {"CALLME_PACKAGES_DIR": str(packages), "CALLME_STATE_DIR": str(service.state)}
    with_router = {**env, "CALLME_PORT": service.url.rpartition(":")[2]}
    done = subprocess.run([*command, "runs"], env=with_router, check=False, **CAPTURED)
    assert done.returncode == 1
    assert done.stderr.startswith(IN_A_LIBRARY.replace("¦ ", ""))
    assert done.stderr.endswith("(char 1) (helper.py:6 in read)\n")
    alone = {**env, "CALLME_STATE_DIR": str(tmp_path)}
    argv = [*command, str(packages / "sets_up"), "--json", "{}"]
    done = subprocess.run(argv, env=alone, check=False, **CAPTURED)
    assert "its set-up failed: KeyError" in json.loads(done.stdout)["error"]["message"]
    assert '  File "run.py", line 8, in setup\n' in done.stderr
