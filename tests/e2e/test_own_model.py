"""A model of one's own, from `callme new` to one that is edited while it serves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli import app
from tests.waiting import free_port, wait_until

CALLME = (sys.executable, "-m", "router.cli")
TEMPLATES = ("text", "stream", "picture", "audio")
ROOT = Path(__file__).resolve().parents[2]


class Person:
    """Types commands in a folder with four new models, while `callme up --reload` runs."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env
        self.screen = folder / "screen"

    def types(self, *arguments: str, ok: bool = True) -> str:
        """Return what `callme …` prints on both streams; in this process, to be quick."""
        with contextlib.chdir(self.folder):
            done = CliRunner().invoke(app, list(arguments), env=dict(self.env))
        assert (done.exit_code == 0) is ok, done.output
        return done.output

    def sees(self, text: str) -> str:
        """Wait until `callme up` has printed it since the last call, and return what it printed."""
        read = wait_until(lambda: text in self.screen.read_text() and self.screen.read_text(), 250)
        self.screen.write_text("")
        return str(read)

    def edits(self, old: str, new: str) -> None:
        """Change one line of the model for texts."""
        path = self.folder / "my-text" / "run.py"
        source = path.read_text()
        assert old in source
        path.write_text(source.replace(old, new))


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """With one model of each template."""
    folder = tmp_path_factory.mktemp("own")
    env = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    env |= {"CALLME_PACKAGES_DIR": str(folder), "CALLME_PORT": str(free_port())}
    env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    person = Person(folder, env)
    for template in TEMPLATES:
        assert f"callme predict ./my-{template}" in person.types(
            "new", f"my-{template}", "--template", template
        )
    (folder / "callme.toml").write_text('[models.my-audio]\nkeep_loaded = "always"\n')
    command = [*CALLME, "up", "--reload"]
    with person.screen.open("a") as screen:
        up = subprocess.Popen(command, cwd=folder, env=env, stdout=screen, stderr=screen)
    try:
        person.sees("Stop: Ctrl-C")
        yield person
    finally:
        up.terminate()
        up.wait(240)


@pytest.mark.parametrize("template", TEMPLATES)
def test_its_test_runs(person: Person, template: str) -> None:
    """As `callme new` says."""
    argv = [sys.executable, f"my-{template}/test_run.py"]
    done = subprocess.run(argv, cwd=person.folder, capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


def test_they_run_as_they_are(person: Person) -> None:
    """With the inputs that are in the folder."""
    text = json.loads(person.types("predict", "my-text", "-i", "text=the cat and the hat"))
    assert text == {"words": 5, "most_used": ["cat", "hat"]}
    assert json.loads(person.types("predict", "my-stream", "-i", "text=a b")) == ["a ", "b "]
    for name, sample, made in (("picture", "png", "grey.png"), ("audio", "wav", "loud.wav")):
        field = {"picture": "image", "audio": "audio"}[name]
        given = f"{field}=@my-{name}/sample.{sample}"
        person.types("predict", f"my-{name}", "-i", given, "-o", made)
    assert (person.folder / "grey.png").read_bytes().startswith(b"\x89PNG")
    with wave.open(str(person.folder / "loud.wav")) as read:
        frames = memoryview(read.readframes(read.getnframes())).cast("h")
        assert max(frames) == round(0.9 * 32767)


def test_inputs_are_listed(person: Person) -> None:
    """By the router, and from a folder."""
    for model in ("my-text", "./my-text"):
        listed = person.types("inputs", model)
        assert "text     required" in listed
        assert "1 to 20" in listed
    assert "grey, invert" in person.types("inputs", "my-picture")
    properties = json.loads(person.types("inputs", "my-text", "--json"))
    assert properties["top"]["default"] == 3


def test_an_edit_is_served(person: Person) -> None:
    """Only that model is restarted. test_newcomer.py has what happens when the edit is wrong."""
    person.edits("words=len(words)", "words=len(words) + 1000")
    assert "my-text: run.py changed" in person.sees("✓ my-text")
    words = ("predict", "my-text", "-i", "text=a cat")
    assert json.loads(person.types(*words))["words"] == 1002

    states = json.loads(person.types("status", "--json"))["models"]
    assert {name: m["loads"] for name, m in states.items() if name != "my-text"} == {
        f"my-{template}": 1 for template in TEMPLATES if template != "text"
    }


def test_unload_load_restart(person: Person) -> None:
    """Each waits until it is done. A model that is kept loaded stays unloaded until it is loaded
    again."""

    def kept() -> dict[str, bool]:
        models = json.loads(person.types("status", "--json"))["models"]
        return {name: m["kept_loaded"] for name, m in models.items() if m["kept_loaded"]}

    assert kept() == {"my-audio": True}
    assert person.types("unload", "my-audio") == "my-audio is unloaded\n"
    assert kept() == {}
    assert "my-audio is ready: loaded in" in person.types("load", "my-audio")
    assert kept() == {"my-audio": True}
    assert person.types("load", "my-audio") == "my-audio is loaded already\n"
    assert "my-audio is ready: loaded in" in person.types("restart", "my-audio")
    assert json.loads(person.types("status", "--json"))["models"]["my-audio"]["loads"] == 3
    assert "Cannot find model 'my-adio'" in person.types("restart", "my-adio", ok=False)


def test_usage(person: Person) -> None:
    """What has run so far, and what it would have cost elsewhere."""
    person.types("predict", "my-text", "-i", "text=a cat")
    assert "│" not in (seen := person.types("usage"))
    assert "my-text" in seen
    assert "an estimate of the same seconds on Replicate" in seen
    assert all(len(line) <= 80 for line in seen.splitlines() if "my-" in line)
    found = json.loads(person.types("usage", "--days", "1", "--json"))
    assert found["total"]["predictions"] >= 1
    assert person.types("usage", "--daily").count(found["until"]) >= 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [("My", "lower-case"), ("docs", "router's own paths"), ("my-text", "exists already")],
)
def test_a_name_that_cannot_be(person: Person, name: str, reason: str) -> None:
    """Nothing is made."""
    before = sorted(person.folder.iterdir())
    assert reason in person.types("new", name, ok=False)
    assert sorted(person.folder.iterdir()) == before
