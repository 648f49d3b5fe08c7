"""The folder as Cog sees it: configuration, pins, signature, and the real server."""

import ast
import base64
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import typing
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest
import yaml
from cog import _inspector
from run import Runner

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "grounding"
TEXT_NAMED_PNG = "data:image/png;base64," + base64.b64encode(b"not a picture").decode()


def openapi():
    """The schema that `cog build` would write, as far as this package needs it."""
    inputs, required = {}, []
    info = _inspector.create_predictor("run", "Runner")
    for name, field in info.inputs.items():
        entry = {"x-order": field.order, "title": name, **field.type.json_type()}
        optional = field.type.repetition.name.startswith("OPTIONAL")
        if optional:
            entry["nullable"] = True
        elif field.default is None:
            required.append(name)
        if field.default is not None:
            entry["default"] = field.default
        limits = {"minimum": field.ge, "maximum": field.le, "maxLength": field.max_length}
        entry |= {key: value for key, value in limits.items() if value is not None}
        if field.choices:
            entry["enum"] = list(field.choices)
        inputs[name] = entry
    schemas = {
        "Input": {"title": "Input", "type": "object", "properties": inputs, "required": required},
        "Output": info.output.json_type(),
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0"},
        "paths": {"/predictions": {"post": {}}},
        "components": {"schemas": schemas},
    }


class Server:
    """Coglet on a copy of the package, with a temporary directory of its own."""

    def __init__(self, folder):
        self.package = folder / "grounding"
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        ignore = shutil.ignore_patterns("__pycache__", ".cog", ".*_cache")
        shutil.copytree(PACKAGE, self.package, ignore=ignore)
        (self.package / ".cog").mkdir()
        (self.package / ".cog" / "openapi_schema.json").write_text(json.dumps(openapi()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PORT": str(self.port),
            "TMPDIR": str(self.tmp),
            "COG_PREDICT_TYPE_STUB": "run.py:Runner",
            "COG_SETUP_TIMEOUT": "100",
            "COG_MAX_CONCURRENCY": str(Runner.run.__cog_concurrent_max__),  # as the router does
            "WEIGHTS": "drawn",
            "OMP_NUM_THREADS": "2",
        }
        self.process = subprocess.Popen(
            ["python", "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=self.package,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("w"),
        )
        self._wait(folder / "log")

    def _wait(self, log):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                status = self.get("/health-check")["status"]
            except urllib.error.URLError:
                status = "no answer"
            if status == "READY":
                return
            if self.process.poll() is not None or status == "SETUP_FAILED":
                break
            time.sleep(0.1)
        pytest.fail(f"coglet is not ready: {log.read_text()[-3000:]}")

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=240) as answer:
            return json.load(answer)

    def predict(self, **inputs):
        """POST a prediction; (HTTP status, body). Coglet's spurious 409 is retried."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/predictions",
            json.dumps({"input": inputs}).encode(),
            {"Content-Type": "application/json"},
        )
        for _ in range(1000):  # ten seconds: a slow machine is no failure
            try:
                with urllib.request.urlopen(request, timeout=240) as answer:  # noqa: S310
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 409:
                    return error.code, json.load(error)
            time.sleep(0.01)
        pytest.fail("coglet stays busy")

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("coglet"))
    yield running
    running.stop()


def test_coglet_serves_a_checkpoint(server):
    """The folder alone, under the real server, finds what it should."""
    image = str(PACKAGE / "samples" / "shapes.png")
    status, body = server.predict(image=image, text_queries="red circle, blue square")
    assert (status, body["status"]) == (200, "succeeded"), body
    output = body["output"]
    assert {d["label"] for d in output["detections"]} == {"red circle", "blue square"}
    assert output["image"] == {"width": 480, "height": 360}
    assert output["annotated_image"] is None
    assert output["thresholds"] == {"box_threshold": 0.35, "text_threshold": 0.25, "nms": None}


def test_coglet_inlines_the_drawn_picture_and_the_export(server):
    """Optional parts arrive as a JPEG data URI and as JSON."""
    status, body = server.predict(
        image=str(PACKAGE / "samples" / "shapes.png"),
        text_queries="red circle",
        nms=0.5,
        annotated=True,
        format="coco",
    )
    assert (status, body["status"]) == (200, "succeeded"), body
    assert body["output"]["annotated_image"].startswith("data:image/jpeg;base64,")
    assert body["output"]["export"]["categories"] == [{"id": 1, "name": "red circle"}]


def test_requests_at_once_are_all_served(server):
    """As many as the decorator promises, with different labels, each get their own answer."""
    labels = ["red circle", "blue square", "yellow star", "green triangle"] * 2
    assert len(labels) == Runner.run.__cog_concurrent_max__
    image = str(PACKAGE / "samples" / "shapes.png")
    with ThreadPoolExecutor(len(labels)) as pool:
        answers = list(pool.map(lambda q: server.predict(image=image, text_queries=q), labels))
    for label, (status, body) in zip(labels, answers, strict=True):
        assert (status, body["status"]) == (200, "succeeded"), body
        assert body["output"]["queries_used"] == [label]
        assert {d["label"] for d in body["output"]["detections"]} == {label}


def test_bad_input_is_named_and_leaves_nothing(server):
    """The class name that a router looks for is in the error; the temporary folder holds no
    picture of ours; the next prediction works."""
    before = sorted(p for p in server.tmp.iterdir() if p.name != "coglet")
    status, body = server.predict(image=TEXT_NAMED_PNG, text_queries="cat")
    assert (status, body["status"]) == (200, "failed")
    assert "InvalidInput: Cannot read the picture" in body["error"]
    assert str(server.tmp) not in body["error"]
    assert sorted(p for p in server.tmp.iterdir() if p.name != "coglet") == before
    assert server.predict(**{"image": str(PACKAGE / "samples" / "shapes.png")})[0] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"box_threshold": 1.5}, {"box_threshold": "abc"}, {"nms": -1}, {"format": "xml"},
        {"max_detections": 0}, {"max_detections": 901}, {"text_queries": "a, " * 21_846},
    ],
)  # fmt: skip
def test_limits_are_the_schemas(server, wrong):
    """Out of range or of the wrong type: 422 before the model sees it."""
    image = str(PACKAGE / "samples" / "shapes.png")
    assert server.predict(**{"image": image, "text_queries": "cat", **wrong})[0] == 422


def test_requirements_repeat_the_projects_pins():
    """requirements.txt is the extra of pyproject.toml, line for line."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (PACKAGE / "requirements.txt").read_text().split()
    assert lines == extras["optional-dependencies"]["grounding"]


def test_cog_yaml_has_the_current_keys():
    """Current keys only, the runner exists, and the versions are those of the project."""
    config = yaml.safe_load((PACKAGE / "cog.yaml").read_text())
    assert set(config) == {"build", "run"}
    assert config["run"] == "run.py:Runner"
    build = config["build"]
    assert build["gpu"] is True
    assert isinstance(build["cuda"], str)
    assert build["python_version"] == "3.11"
    assert f"cog=={build['sdk_version']}" in (PACKAGE / "requirements.txt").read_text()
    assert (PACKAGE / build["python_requirements"]).is_file()


def test_signature_obeys_static_inference():
    """Everything annotated, plain defaults, no starred or keyword-only parameters, no unions
    but with None."""
    tree = ast.parse((PACKAGE / "run.py").read_text())
    (run,) = [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef) and n.name == "run"]
    assert run.returns is not None
    assert not (run.args.vararg or run.args.kwarg or run.args.kwonlyargs)
    constants = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets}
    for argument, call in zip(run.args.args[1:], run.args.defaults, strict=True):
        assert argument.annotation is not None
        for keyword in call.keywords:
            try:
                ast.literal_eval(keyword.value)
            except ValueError:
                assert keyword.value.id in constants
        if "|" in ast.unparse(argument.annotation):
            assert ast.unparse(argument.annotation).endswith("| None")
    hints = typing.get_type_hints(Runner.run)
    assert set(inspect.signature(Runner.run).parameters) - {"self"} <= set(hints)


def test_every_input_is_described():
    """The descriptions are the API's documentation."""
    for name, field in _inspector.create_predictor("run", "Runner").inputs.items():
        assert len(field.description or "") > 20, name


def test_packages_do_not_know_each_other():
    """No import of the router or of another package."""
    for path in PACKAGE.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in ("router", "fluency", "sketch2real", "tests")


def test_example_is_flat_and_its_files_ship():
    """example.json names inputs of run() and files of this folder."""
    example = json.loads((PACKAGE / "example.json").read_text())
    assert set(example) <= set(inspect.signature(Runner.run).parameters)
    for value in example.values():
        if isinstance(value, str) and value.startswith("@"):
            assert (PACKAGE / value[1:]).is_file()


def test_demo_weights_fit_their_limit():
    """At most 16 MB travel with the package."""
    total = sum(p.stat().st_size for p in (PACKAGE / "weights").rglob("*") if p.is_file())
    assert total <= 16_000_000


def test_output_schema_is_json_schema():
    """The generated schema is one that validators accept."""
    schema = openapi()["components"]["schemas"]
    jsonschema.Draft202012Validator.check_schema(schema["Input"])
    assert set(schema["Output"]["properties"]) >= {"detections", "image", "queries_used"}
