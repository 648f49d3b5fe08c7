"""Cog's own integration scenarios of its HTTP server, through /models/{model}.

Cog 0.23.1's source distribution has them in integration-tests/tests/*.txtar. All of them were
tried with the packages that they bring; each is here, or where this list says:

| scenario | here |
| --- | --- |
| coglet_metrics*, emit_metric_deprecated, scope_context, sse_streaming_metrics | test_cog_metrics |
| healthcheck* | test_cog_health, and below |
| subdirectory_predictor | test_subfolder |
| sse_streaming_output, sse_requires_streaming_opt_in | test_streaming |
| cancel_*, webhook_*, predict_sys_exit, prediction_error_response | test_cog_api, test_failures |
| path_*, file_*, pep604_*, string_input_url_*, many_inputs, coglet_large_output | test_cog_api |
| union_input_*, setup_timeout_serial, setup_worker_tracing_logs | below |
| sequential_state_leak, iterator_error_midstream, async_*, function_predictor | below |
| setup_subprocess_* | test_failures, tests of process groups |

Otherwise by intent: an explicit null for an input that may be left out is taken as "not given"
(union_input_http wants it refused); the text of a request is bounded, so a text input of 7 MiB is
413 (coglet_large_input); a stream keeps its whole history, whatever
COG_STREAM_HISTORY_CAPACITY says (sse_stream_history_*); the words of a 406 are ours.

Not here: what needs Docker, the cog command or a registry (build_*, doctor_*, exec_*, oci_*,
pty_*, torch_*, wheel_*, weights_*, predict_json_*, static_schema_*), /trainings (train_*), and
`--upload-url` (coglet_*_upload_*, coglet_single_path_output, coglet_list_path_*): files of an
output are data: URIs in Cog's API here, and URLs in Replicate's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.prediction import new_id
from tests.e2e.service import ROOT, Service, running_service
from tests.waiting import wait_until

COG_YAML = 'build:\n  python_version: "3.12"\nrun: "run.py:{name}"\n'
RUNNERS = {
    "union": """
from cog import BaseRunner, Input

class Runner(BaseRunner):
    def run(
        self,
        value: str | float = Input(description="Text or a number", default="-"),
        flipped: float | str = Input(description="A number or text", default=0.5),
        maybe: str | float | None = Input(default=None),
        nums: list[int] | list[float] = Input(description="Numbers", default=[]),
    ) -> str:
        given = [value, flipped, maybe, *nums]
        return " ".join(f"{type(v).__name__}:{v}" for v in given)
""",
    "stateful": """
from cog import BaseRunner

_state: list = []

class Runner(BaseRunner):
    def run(self, item: str) -> str:
        _state.append(item)
        return str(_state)
""",
    "midstream": """
from typing import Iterator
from cog import BaseRunner

class Runner(BaseRunner):
    def run(self) -> Iterator[str]:
        yield "chunk-1"
        yield "chunk-2"
        raise RuntimeError("generator exploded")
""",
    "collected": """
import asyncio
from typing import AsyncIterator
from cog import BaseRunner

class Runner(BaseRunner):
    def setup(self) -> None:
        print("models loaded from /srv/private/models")

    async def run(self) -> AsyncIterator[str]:
        for i in range(5):
            await asyncio.sleep(0.1)
            yield f"chunk-{i}"

    async def healthcheck(self) -> bool:
        await asyncio.sleep(0.01)
        return True
""",
    "function": """
from cog import Input

def shout(prompt: str = Input()) -> str:
    return f"HELLO {prompt.upper()}"
""",
    "legacy": """
import sys
from cog import BasePredictor

class Predictor(BasePredictor):
    def predict(self, do_exit: bool = False) -> str:
        if do_exit:
            sys.exit(1)
        return "still alive"
""",
}
NAMES = {"function": "shout", "legacy": "Predictor"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All of RUNNERS."""
    packages = tmp_path_factory.mktemp("packages")
    for name, source in RUNNERS.items():
        write_package(packages / name, source, COG_YAML.format(name=NAMES.get(name, "Runner")))
    with running_service(packages, tmp_path_factory.mktemp("scenarios") / "state") as service:
        yield service


def write_package(folder: Path, source: str, cog_yaml: str) -> None:
    """A package of one file."""
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(source)
    (folder / "cog.yaml").write_text(cog_yaml)


def post(service: Service, model: str, **inputs: Any) -> dict[str, Any]:
    """A synchronous prediction."""
    answer = service.http.post(f"/models/{model}/predictions", json={"input": inputs})
    assert answer.status_code == 200, answer.text
    p: dict[str, Any] = answer.json()
    return p


# ---- unions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ({}, "str:- float:0.5 NoneType:None"),
        ({"value": "hello", "flipped": "x"}, "str:hello str:x NoneType:None"),
        ({"value": 1.5, "maybe": 2.5}, "float:1.5 float:0.5 float:2.5"),
        ({"value": 1, "nums": [1]}, "int:1 float:0.5 NoneType:None int:1"),
        ({"nums": [1.5]}, "str:- float:0.5 NoneType:None float:1.5"),
        ({"maybe": None}, "str:- float:0.5 NoneType:None"),
    ],
)
def test_union_in_json(service: Service, inputs: dict[str, Any], output: str) -> None:
    """Each member as it was sent."""
    assert post(service, "union", **inputs)["output"] == output


@pytest.mark.parametrize(
    "inputs",
    [{"value": True}, {"value": {"x": 1}}, {"value": None}, {"nums": ["3"]}, {"nums": [True]}],
)
def test_union_refuses_the_others(service: Service, inputs: dict[str, Any]) -> None:
    """422 that names the input."""
    answer = service.http.post("/models/union/predictions", json={"input": inputs})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", "input", *inputs]


@pytest.mark.parametrize(
    ("value", "flipped", "output"),
    [
        ("hello", "world", "str:hello str:world"),
        ("1.5", "2.5", "float:1.5 float:2.5"),
        ("1", "2", "int:1 int:2"),
    ],
)
def test_union_in_a_form(service: Service, value: str, flipped: str, output: str) -> None:
    """A number where it reads as one, else text."""
    form = {"value": (None, value), "flipped": (None, flipped)}
    answer = service.http.post("/union", files=form)
    assert answer.json() == f"{output} NoneType:None", answer.text


def test_union_on_the_command_line(service: Service) -> None:
    """`callme predict` does as `cog run` does."""
    command = [str(Path(sys.executable).with_name("callme")), "predict", "union"]
    for given, output in (("hello", "str:hello"), ("2", "int:2"), ("2.5", "float:2.5")):
        ended = subprocess.run(
            [*command, "-i", f"value={given}", "--url", service.url],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=ROOT,
            check=False,
        )
        assert ended.stdout.startswith(output), ended.stderr


# ---- what runners may be -----------------------------------------------------------------


def test_state_stays(service: Service) -> None:
    """A module's state is shared by the predictions of one process, one after the other."""
    outputs = [post(service, "stateful", item=item)["output"] for item in "abc"]
    assert outputs == ["['a']", "['a', 'b']", "['a', 'b', 'c']"]


def test_an_iterator_that_raises(service: Service) -> None:
    """Failed, with its words."""
    p = post(service, "midstream")
    assert p["status"] == "failed"
    assert "generator exploded" in p["error"]


def test_an_async_generator_is_collected(service: Service) -> None:
    """All of it, and the time of all of it."""
    p = post(service, "collected")
    assert p["output"] == [f"chunk-{i}" for i in range(5)]
    assert p["metrics"]["predict_time"] >= 0.5


def test_a_function(service: Service) -> None:
    """No class at all."""
    assert post(service, "function", prompt="world")["output"] == "HELLO WORLD"
    assert service.http.post("/models/function/predictions", json={}).status_code == 422


def test_sys_exit(service: Service) -> None:
    """Ends the prediction and not the worker; a legacy `predict()`."""
    p = post(service, "legacy", do_exit=True)
    assert p["status"] == "failed"
    assert "SystemExit" in p["error"]
    assert post(service, "legacy")["output"] == "still alive"


# ---- health ------------------------------------------------------------------------------


def test_the_log_of_a_set_up(service: Service) -> None:
    """coglet's lines and the model's, without the folders of this machine."""
    post(service, "collected")
    path = "/models/collected/health-check"
    # coglet may be ready before the last line of the set-up has come, and forgets it then.
    wait_until(lambda: "models loaded from" in service.http.get(path).json()["setup"]["logs"])
    health = service.http.get(path).json()
    assert (health["status"], health["setup"]["status"]) == ("READY", "succeeded")
    for line in ("Spawning worker subprocess", "Connected to slot transport"):
        assert line in health["setup"]["logs"]
    assert "/srv/private" not in health["setup"]["logs"]
    assert "Setup complete, now accepting requests" not in health["setup"]["logs"]


def test_health_checks_in_a_row(service: Service) -> None:
    """50 of them, and during a prediction: READY or BUSY, and predictions go on."""
    path = f"/models/collected/predictions/{new_id()}"
    post(service, "collected")
    service.http.put(path, json={}, headers={"Prefer": "respond-async"})
    seen = {service.http.get("/models/collected/health-check").json()["status"] for _ in range(50)}
    assert seen <= {"READY", "BUSY"}
    wait_until(lambda: service.http.get(path).json()["status"] == "succeeded")


@pytest.mark.parametrize("limit", ["the model's", "the router's"])
def test_a_set_up_that_runs_out_of_time(tmp_path: Path, limit: str) -> None:
    """SETUP_FAILED until the next try begins, with what it printed; callers learn why."""
    source = """
import time
from cog import BaseRunner

class Runner(BaseRunner):
    def setup(self) -> None:
        print("Starting slow setup...")
        time.sleep(600)

    def run(self, s: str = "") -> str:
        return s
"""
    cog_yaml = COG_YAML.format(name="Runner")
    env = {"CALLME_PRELOAD": "slow"}
    if limit == "the model's":
        cog_yaml += "environment:\n  - COG_SETUP_TIMEOUT=15\n"
    else:
        env["CALLME_SETUP_TIMEOUT_S"] = "15"
    write_package(tmp_path / "packages" / "slow", source, cog_yaml)
    with running_service(tmp_path / "packages", tmp_path / "state", env) as service:

        def failed() -> dict[str, Any] | None:
            health = service.http.get("/models/slow/health-check").json()
            return health if health["status"] not in ("READY", "STARTING") else None

        health = wait_until(failed)
        assert (health["status"], health["setup"]["status"]) == ("SETUP_FAILED", "failed")
        assert "Starting slow setup..." in health["setup"]["logs"]
        retry_in_s = service.model("slow")["retry_in_s"]
        wait_until(lambda: service.model("slow")["retry_in_s"] == 0 or retry_in_s == 0)
        assert failed() == health, "nobody has asked for another try"
        answer = service.http.post("/slow", files={"s": (None, "x")})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert failed(), json.dumps(service.model("slow"))
