"""What is wrong in callme.toml or CALLME_…: where, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli import app
from router.config_mistakes import line_of, mistakes
from router.settings import Settings

TOML = """\
# the box
port = 7777
preload = ["grounding"]

[models.grounding]
backend = "local"  # here

[models."sketch2real".env]
A = "b"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the packages, as the settings name it."""
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("port",), 2),
        (("preload", 0), 3),
        (("models", "grounding"), 5),
        (("models", "grounding", "backend"), 6),
        (("models", "grounding", "env"), 5),
        (("models", "sketch2real", "env", "A"), 9),
        (("host",), None),
    ],
)
def test_the_line_of_a_setting(place: tuple[str | int, ...], line: int | None) -> None:
    """Its own, else that of its table."""
    assert line_of(TOML, place) == line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "port = 1\n\nidel_to_sleep_s = 3\n",
            "callme.toml, line 3: unknown setting 'idel_to_sleep_s' "
            "(did you mean 'idle_to_sleep_s'?)",
        ),
        (
            '[models.grounding]\nenv.A = "b"\nbakend = "local"\n',
            "callme.toml, line 3: unknown setting 'models.grounding.bakend' "
            "(did you mean 'backend'?)",
        ),
        (
            '[models.a.remote]\nkid = "cog"\n',
            "callme.toml, line 2: unknown setting 'models.a.remote.kid' (did you mean 'kind'?)",
        ),
        ("x = 1\nport = 99999\n", "callme.toml, line 2: 'port': Input should be less than"),
        (
            "[models.a]\nmin_ready = 1\n",
            "callme.toml, line 2: unknown setting 'models.a.min_ready' "
            "(did you mean 'keep_loaded'?)",
        ),
        (
            '[models.a]\nkeep_loaded = "Mo-Fr 8-19"\n',
            "callme.toml, line 2: 'models.a.keep_loaded': Value error, 'mo-fr 8-19' must be like "
            "'Mon-Fri 08:00-19:00'",
        ),
        ("port = \n", "callme.toml, line 1, column 8: Invalid value"),
    ],
)
def test_a_file_that_cannot_be_used(folder: Path, text: str, told: str) -> None:
    """One sentence for each problem, on stderr, with exit code 2."""
    (folder / "callme.toml").write_text(text)
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 2
    assert f"Cannot read {told}" in done.stderr.replace("\n", " ").replace("  ", " ")


def test_a_variable_that_cannot_be_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and not the file."""
    (folder / "callme.toml").write_text("port = 5\n")
    monkeypatch.setenv("CALLME_PORT", "many")
    done = CliRunner().invoke(app, ["models"])
    assert (done.exit_code, "Cannot read CALLME_PORT: 'port': " in done.stderr) == (2, True)


def test_what_has_no_effect(folder: Path) -> None:
    """Models and variables that do not exist."""
    text = 'preload = ["echo", "gronding"]\n[models.groundign.env]\nA = "b"\n[models.echo]\n'
    (folder / "callme.toml").write_text(text)
    environ = {"CALLME_PRELAOD": "a", "CALLME_PORT": "1", "CALLME_MODELS__A__ENV": "", "HOME": "/"}
    assert list(mistakes(Settings(), ["echo", "grounding"], environ)) == [
        "callme.toml, line 2: there is no model 'groundign' (did you mean 'grounding'?)",
        "callme.toml, line 1: preload: there is no model 'gronding' (did you mean 'grounding'?)",
        "CALLME_PRELAOD is no setting (did you mean 'CALLME_PRELOAD'?)",
    ]
    assert list(mistakes(Settings(), ["echo", "groundign", "gronding"], {})) == []


def test_a_canary_that_does_not_exist(folder: Path) -> None:
    """Or that is a version of another model."""
    text = '[models.a]\ncanary = "a@nxt"\n[models.b]\nshare = 0.5\ncanary = "a@next"\n'
    (folder / "callme.toml").write_text(text)
    assert list(mistakes(Settings(), ["a", "a@next", "b"], {})) == [
        "callme.toml, line 2: canary: 'a' has no version 'a@nxt' (did you mean 'a@next'?)",
        "callme.toml, line 5: canary: 'b' has no version 'a@next'",
    ]
