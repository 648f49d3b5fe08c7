"""The schema that coglet validates by: made when missing or stale, and true to the runner."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from router.models.catalog import Package
from router.models.process_interface import StartError
from router.models.schemas import (
    SCHEMA_NAME,
    STAMP_NAME,
    describe,
    fingerprint,
    read_description,
)

pytestmark = pytest.mark.slow

ECHO = Path(__file__).parents[2] / "packages" / "echo"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A copy of the echo package without a schema."""
    shutil.copytree(ECHO, tmp_path / "echo", ignore=shutil.ignore_patterns(".cog", "__pycache__"))
    return Package("echo", tmp_path / "echo", "run.py:Runner", Path(sys.executable))


async def test_a_missing_schema_is_made(package: Package) -> None:
    """It says what the runner's annotations say, in cog's shape."""
    assert read_description(package) is None
    made = await describe(package)
    inputs = made.schema["components"]["schemas"]["Input"]["properties"]
    assert inputs["number"] == {
        "x-order": 1,
        "title": "Number",
        "type": "number",
        "default": 0.5,
        "description": "A number from 0 to 1",
        "minimum": 0.0,
        "maximum": 1.0,
    }
    assert inputs["file"]["format"] == "uri"
    assert inputs["file"]["nullable"] is True
    assert inputs["mode"]["allOf"] == [{"$ref": "#/components/schemas/mode"}]
    assert made.max_concurrency == 1
    assert (package.folder / ".cog" / SCHEMA_NAME).exists()


RUNNER = """
from cog import BasePredictor, Input, Path, Secret, concurrent

FIXED = Input(default=None)


class Runner(BasePredictor):
    @concurrent(max=3)
    async def predict(
        self,
        key: Secret = Input(description="Required"),
        own_key: Secret = Input(default=None),
        first_key: Secret = Input(None),
        fixed_key: Secret = FIXED,
        known_key: Secret = Input(default="known"),
        seed: int = Input(default=None),
        either: str | float = Input(description="Text or a number"),
        maybe: str | float | None = Input(default=None),
        asked: str | float | None = Input(description="Must be given, or null"),
        name: str | None = Input(description="May be left out"),
        picture: Path = Input(accept="image/*"),
        old: str = Input(default="x", deprecated=True),
    ) -> str:
        return name or ""
"""


async def test_what_must_be_given(package: Package) -> None:
    """As `cog build` 0.23.1 writes it (pkg/schema/openapi_spec.go): a default of None counts for
    a Secret and for what may be null, and a union without a default must be given."""
    (package.folder / "run.py").write_text(RUNNER)
    made = await describe(package)
    inputs = made.schema["components"]["schemas"]["Input"]
    assert inputs["required"] == ["key", "seed", "either", "asked", "picture"]
    properties = inputs["properties"]
    nullable = {name for name, p in properties.items() if p.get("nullable")}
    assert nullable == {"own_key", "first_key", "fixed_key", "maybe", "asked", "name"}
    assert properties["either"]["anyOf"] == [{"type": "string"}, {"type": "number"}]
    assert all(variant["nullable"] for variant in properties["maybe"]["anyOf"])
    assert properties["picture"]["x-cog-accept"] == "image/*"
    assert properties["old"]["deprecated"] is True
    assert made.max_concurrency == 3


async def test_a_fresh_schema_is_read(package: Package) -> None:
    """A second start does not import the runner again."""
    made = await describe(package)
    assert read_description(package) == made


async def test_a_stale_schema_is_made_anew(package: Package) -> None:
    """A change of the runner is seen."""
    await describe(package)
    before = fingerprint(package)
    run = package.folder / "run.py"
    run.write_text(run.read_text().replace("A number from 0 to 1", "Another text"))
    assert fingerprint(package) != before
    assert read_description(package) is None
    made = await describe(package)
    number = made.schema["components"]["schemas"]["Input"]["properties"]["number"]
    assert number["description"] == "Another text"


async def test_a_broken_stamp_is_no_harm(package: Package) -> None:
    """Half-written files are made again."""
    await describe(package)
    (package.folder / ".cog" / STAMP_NAME).write_text("{")
    assert read_description(package) is None
    assert await describe(package)


async def test_a_runner_that_cannot_be_read(package: Package) -> None:
    """StartError with Python's last line; repaired, it is read."""
    run = package.folder / "run.py"
    text = run.read_text()
    run.write_text("import nosuchmodule\n")
    with pytest.raises(StartError, match="nosuchmodule"):
        await describe(package)
    run.write_text(text)
    assert await describe(package)


async def test_concurrency_is_the_runners_own(package: Package) -> None:
    """`@concurrent(max=…)` is found."""
    (package.folder / "run.py").write_text(
        "from cog import BaseRunner, concurrent\n"
        "class Runner(BaseRunner):\n"
        "    @concurrent(max=4)\n"
        "    async def run(self, x: int) -> int:\n"
        "        return x\n"
    )
    assert (await describe(package)).max_concurrency == 4


async def test_secrets_in_the_schema(tmp_path: Path) -> None:
    """Marked as Cog marks them, in lists too; a default, which everybody could read, is left to
    the runner, whatever kind of value it is."""
    source = Path(__file__).parents[2] / "packages" / "keeper"
    shutil.copytree(source, tmp_path / "keeper", ignore=shutil.ignore_patterns(".cog"))
    package = Package("keeper", tmp_path / "keeper", "run.py:Runner", Path(sys.executable))
    schema = (await describe(package)).schema["components"]["schemas"]["Input"]
    secret = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}
    properties = schema["properties"]
    for described in (properties["token"], properties["fallback"], properties["more"]["items"]):
        assert described.items() >= secret.items()
    assert "default" not in properties["fallback"]
    # Or its server would hand over None in place of the default.
    assert {name for name, p in properties.items() if p.get("nullable")} == {"token", "hint"}
    assert "required" not in schema
    assert properties["label"]["default"] == "none"


@pytest.mark.parametrize(
    "line",
    [
        "import sys; sys.exit(0)",
        "import sys; sys.exit()",
        "import os; os._exit(0)",
        "raise SystemExit",
    ],
)
async def test_an_import_that_ends_the_interpreter(package: Package, line: str) -> None:
    """It is the runner's failure, in words, whatever the exit code says."""
    (package.folder / "run.py").write_text(f"print('loading')\n{line}\n")
    with pytest.raises(StartError, match="its runner cannot be read"):
        await describe(package)


async def test_an_import_that_prints_much(package: Package) -> None:
    """Before the schema and, at its end, after it."""
    run = package.folder / "run.py"
    noise = "import atexit; print('x\\n' * 100_000); atexit.register(print, 'bye')\n"
    docstring, imports, rest = run.read_text().partition("import hashlib")
    run.write_text(docstring + noise + imports + rest)
    made = await describe(package)
    assert "number" in made.schema["components"]["schemas"]["Input"]["properties"]


async def test_a_folder_or_an_interpreter_that_is_gone(package: Package) -> None:
    """While the router runs: a sentence, not a stack trace."""
    no_python = replace(package, python=package.folder / "nosuch")
    with pytest.raises(StartError, match="its interpreter cannot be run"):
        await describe(no_python)
    shutil.rmtree(package.folder)
    with pytest.raises(StartError, match="its folder 'echo' is gone"):
        await describe(package)


async def test_a_source_that_cannot_be_read(package: Package) -> None:
    """A dangling link among the sources is no reason to fail."""
    (package.folder / "dangling.py").symlink_to(package.folder / "nosuch.py")
    assert (await describe(package)).max_concurrency == 1
