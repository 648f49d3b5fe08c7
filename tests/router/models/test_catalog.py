"""Which folders are packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from router.models.catalog import RESERVED, PackageError, discover, read_package, survey
from router.settings import CHECKOUT


def folder(root: Path, name: str, cog_yaml: str = 'run: "run.py:Runner"\n') -> Path:
    """A folder with a cog.yaml."""
    path = root / name
    path.mkdir(parents=True)
    (path / "cog.yaml").write_text(cog_yaml)
    return path


def test_every_folder_with_a_cog_yaml(tmp_path: Path) -> None:
    """Found by name; a folder without one is nothing; what cannot be served is left out."""
    folder(tmp_path, "b")
    folder(tmp_path, "a", 'predict: "predict.py:Predictor"\n')
    folder(tmp_path, "broken", "[")
    folder(tmp_path, "health")
    (tmp_path / "docs").mkdir()
    found = discover(tmp_path, {"*": {"WEIGHTS": "demo"}, "b": {"WEIGHTS": "big"}})
    assert list(found) == ["a", "b"]
    assert found["a"].runner == "predict.py:Predictor"
    assert found["a"].env == {"WEIGHTS": "demo"}
    assert found["b"].env == {"WEIGHTS": "big"}
    assert found["b"].python == Path(sys.executable)


def test_a_packages_own_environment_runs_it(tmp_path: Path) -> None:
    """`.venv/bin/python` in the folder is preferred."""
    path = folder(tmp_path, "a")
    python = path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert read_package(path, {}).python == python


def test_the_deprecated_concurrency(tmp_path: Path) -> None:
    """`concurrency: max:` still counts, as under Cog."""
    cog_yaml = 'run: "run.py:Runner"\nconcurrency:\n  max: 5\n'
    assert read_package(folder(tmp_path, "five", cog_yaml), {}).max_concurrency == 5
    assert read_package(folder(tmp_path, "one"), {}).max_concurrency == 1
    for wrong in ("many", "0"):
        bad = folder(tmp_path, f"x-{wrong}", cog_yaml.replace("5", wrong))
        with pytest.raises(PackageError, match="positive integer"):
            read_package(bad, {})


def test_cog_yamls_environment_is_the_processs(tmp_path: Path) -> None:
    """What Cog would put into the image is given here too; the operator's own word wins."""
    path = folder(tmp_path, "a", 'run: "run.py:R"\nenvironment:\n  - A=1=2\n  - B=x\n')
    assert read_package(path, {"B": "y"}).env == {"A": "1=2", "B": "y"}


@pytest.mark.parametrize(
    "cog_yaml",
    [
        "",
        "[]",
        "build: {}\n",
        "run: 7\n",
        'run: "../../evil.sh"\n',
        'run: "x.py"\n',
        'run: "r.py:R"\nenvironment: [A]\n',
    ],
)
def test_what_is_no_package(tmp_path: Path, cog_yaml: str) -> None:
    """Each is refused with a reason."""
    with pytest.raises(PackageError):
        read_package(folder(tmp_path, "a", cog_yaml), {})


@pytest.mark.parametrize("name", ["Upper", "with space", "-x", "1a", *sorted(RESERVED)])
def test_names_that_cannot_be_paths(tmp_path: Path, name: str) -> None:
    """Odd names, and the router's own paths."""
    with pytest.raises(PackageError):
        read_package(folder(tmp_path, name), {})


def test_the_checkout_has_its_packages() -> None:
    """Each folder with a cog.yaml beside the router is found, and has an example."""
    found = discover(CHECKOUT, {})
    assert {p.parent.name for p in CHECKOUT.glob("*/cog.yaml")} == set(found)
    assert all(p.example for p in found.values())


ALIASES = ", ".join(["*a"] * 9)
HOSTILE = {
    "deep": ("a: " + "[" * 20_000, "levels deep"),
    "bomb": (
        "a0: &a0 [x]\n"
        + "\n".join(f"a{n}: &a{n} [{ALIASES.replace('a', f'a{n - 1}')}]" for n in range(1, 9)),
        "more than 10000 values",
    ),
    "long": ("a: x\n" * 100_000, "longer than 256 KiB"),
    "itself": ("a: &a [*a]", "lacks"),
    "bytes": ("run: \x00", "cannot be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_cog_yaml(tmp_path: Path, name: str) -> None:
    """A sentence about this package, soon, and the others are found."""
    text, reason = HOSTILE[name]
    with pytest.raises(PackageError, match=reason):
        read_package(folder(tmp_path, name, text), {})
    folder(tmp_path, "sound")
    assert list(discover(tmp_path, {})) == ["sound"]


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    """By the folder's name; what can be served is not among it."""
    folder(tmp_path, "sound")
    folder(tmp_path, "Loud")
    found, left_out = survey(tmp_path, {})
    assert list(found) == ["sound"]
    assert left_out == {"Loud": "its name must be lower-case letters, digits, '-' and '_'"}


def test_anchors_are_used(tmp_path: Path) -> None:
    """They are YAML, and harmless by themselves."""
    text = 'x: &r "run.py:Runner"\nrun: *r\nenvironment: &e [A=1]\nagain: *e\n'
    assert read_package(folder(tmp_path, "sound", text), {}).runner == "run.py:Runner"


def test_an_example_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There is none then, and the log says why."""
    sound = folder(tmp_path, "sound")
    (sound / "example.json").write_text("[" * 100_000)
    assert read_package(sound, {}).example == {}
    assert "example.json" in caplog.text


def test_a_version_is_a_folder_with_an_at_sign(tmp_path: Path) -> None:
    """Or a link to one elsewhere, as of a Git worktree. It gets its model's variables, too."""
    folder(tmp_path, "a")
    folder(tmp_path / "worktree", "a")
    (tmp_path / "a@next").symlink_to(tmp_path / "worktree" / "a")
    env = {"*": {"X": "all", "Y": "all"}, "a": {"Y": "a", "Z": "a"}, "a@next": {"Z": "next"}}
    found, _ = survey(tmp_path, env)
    assert list(found) == ["a", "a@next"]
    assert found["a@next"].folder == tmp_path / "worktree" / "a"
    assert found["a@next"].env == {"X": "all", "Y": "a", "Z": "next"}


@pytest.mark.parametrize("name", ["a@", "a@modal", "a@cog", "a@replicate", "a@B", "a@b@c", "@b"])
def test_names_that_are_no_version(tmp_path: Path, name: str) -> None:
    """The scheduler calls a model's remote by such a name."""
    folder(tmp_path, name)
    found, left_out = survey(tmp_path, {})
    assert (list(found), list(left_out)) == ([], [name])
    assert left_out[name].startswith("its ")
