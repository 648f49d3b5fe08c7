"""`callme run` and `callme serve MODEL` do what `cog run` and `cog serve` do, without Docker."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from router.cli import app
from tests.waiting import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import tempfile

from cog import BaseRunner, Input, Path


class Runner(BaseRunner):
    def run(
        self, how: str = Input(default="text"), file: Path | None = Input(default=None)
    ) -> list[Path]:
        if how == "fails":
            raise ValueError("no bread")
        made = [Path(f"{tempfile.mkdtemp()}/{i}.txt") for i in (0, 1)]
        text = file.read_text() if file else "plain"
        for i, path in enumerate(made):
            path.write_text(f"{text} {i}")
        return made
"""
FILLED = """
import os

from cog import BaseRunner


class Runner(BaseRunner):
    def run(self) -> str:
        return os.environ.get("FILLING")
"""


class Kitchen:
    """A folder with the packages `toast` and `roll`. Of the first, a router runs on a port of its
    own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        for name, source in (("toast", RUN), ("roll", FILLED)):
            (folder / name).mkdir()
            (folder / name / "cog.yaml").write_text('run: "run.py:Runner"\n')
            (folder / name / "run.py").write_text(source)
        (folder / "jam.txt").write_text("jam")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
        self.env |= {"CALLME_PACKAGES_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        self.env |= {"CALLME_STATE_DIR": str(folder / "state"), "COLUMNS": "200"}
        self.url = f"http://127.0.0.1:{self.port}"

    def types(self, *arguments: str, given: str | None = None) -> Result:
        """Run `callme …` in the folder, on the running router."""
        env = {**self.env, "CALLME_PORT": str(self.port)}
        with contextlib.chdir(self.folder):
            return CliRunner().invoke(app, list(arguments), input=given, env=env)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """With `callme serve toast` at work."""
    kitchen = Kitchen(tmp_path_factory.mktemp("kitchen"))
    argv = [sys.executable, "-m", "router.cli", "serve", "toast", "-p", str(kitchen.port)]
    with (kitchen.folder / "log").open("w") as log:
        serve = subprocess.Popen(argv, cwd=kitchen.folder, env=kitchen.env, stderr=log)
    try:
        wait_until(lambda: "Serving toast at" in (kitchen.folder / "log").read_text(), 120)
        wait_until(lambda: health(kitchen.url) == "READY", 120)
        yield kitchen
    finally:
        serve.terminate()
        serve.wait(60)


def health(url: str) -> str:
    """What `/health-check` says; "" while nobody listens."""
    with contextlib.suppress(httpx.HTTPError):
        return str(httpx.get(f"{url}/health-check").json()["status"])
    return ""


def test_serve_has_cogs_api_at_its_root(kitchen: Kitchen) -> None:
    """The paths, statuses and shapes that a client of Cog's server asks for."""
    http = httpx.Client(base_url=kitchen.url, timeout=120)
    answer = http.post("/predictions", json={"input": {"how": "fails"}})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    named = http.put("/predictions/one", json={"input": {}})
    assert (named.json()["id"], len(named.json()["output"])) == ("one", 2)
    schema = http.get("/openapi.json").json()
    assert "how" in schema["components"]["schemas"]["Input"]["properties"]
    wrong = http.post("/predictions", json={"input": {"how": 7}})
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "input", "how"])


def test_inputs_as_json(kitchen: Kitchen) -> None:
    """In the command, in a file and on stdin. The whole prediction is printed; files beside it."""
    inputs = '{"file": "@jam.txt"}'
    (kitchen.folder / "inputs.json").write_text(inputs)
    for given in (inputs, "@inputs.json", "-", "@-"):
        done = kitchen.types("run", "toast", "--json", given, "-o", "made.json", given=inputs)
        assert (done.exit_code, done.stdout) == (0, ""), done.output
        shown = json.loads((kitchen.folder / "made.json").read_text())
        assert (shown["status"], shown["output"]) == ("succeeded", ["made.0.txt", "made.1.txt"])
        assert (kitchen.folder / "made.1.txt").read_text() == "jam 1"
        (kitchen.folder / "made.1.txt").unlink()
    done = kitchen.types("run", "toast", "--json", '{"how": "fails"}')
    assert done.exit_code == 1
    assert json.loads(done.stdout)["status"] == "failed"
    assert "in run" in done.stderr


def test_files_of_a_list(kitchen: Kitchen) -> None:
    """Files are named as Cog names them, and are not printed. A failure ends with code 1."""
    done = kitchen.types("run", "toast", "-i", 'file="@jam.txt"', "-o", "cut.txt")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert "Written output to: cut.0.txt" in done.stderr
    assert (kitchen.folder / "cut.1.txt").read_text() == "jam 1"
    assert kitchen.types("predict", "toast", "-i", "how=fails").exit_code == 1


def test_variables_of_its_own_process(kitchen: Kitchen) -> None:
    """Without a name it is the package in this folder. That there is no output is said."""
    with contextlib.chdir(kitchen.folder / "roll"):
        done = CliRunner().invoke(app, ["run", "-e", "FILLING=honey"], env=kitchen.env)
        assert (done.exit_code, done.stdout) == (0, "honey\n"), done.output
        done = CliRunner().invoke(app, ["run"], env=kitchen.env)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No output generated\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("toast", "-i", "how=text", "--json", "{}"), "Cannot use -i and --json together"),
        (("how=text",), "Cannot find a model 'how=text': did you forget -i?"),
        ((), "name one, or go to the folder of a package"),
        (("toast", "--json", "[1]"), "Cannot read --json: it must be an object"),
        (("toast", "--json", "{"), "Cannot read --json: it is not JSON"),
        (("toast", "--json", "@no.json"), "Cannot read --json: no.json: No such file"),
        (("toast", "-e", "NOTSET"), "it must be NAME=value, or a variable that is set"),
        (("toast", "-e", "A=b", "--url", "http://x"), "Cannot use -e with --url"),
        (("toast", "-i", "how"), "it must be name=value or name=@path"),
    ],
)
def test_a_wrong_command(kitchen: Kitchen, arguments: tuple[str, ...], said: str) -> None:
    """Ends with code 2, before anything is started."""
    done = kitchen.types("run", *arguments)
    assert (done.exit_code, said in done.stderr) == (2, True), done.output
