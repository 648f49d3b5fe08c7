"""The package as a folder: what it declares is what there is."""

import ast
import json
import re
import tomllib

from conftest import PACKAGE

ROOT = PACKAGE.parent


def test_requirements_are_the_projects_extra() -> None:
    """requirements.txt repeats the pins of the project's fluency extra, line by line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (PACKAGE / "requirements.txt").read_text().split()
    assert lines == project["project"]["optional-dependencies"]["fluency"]


def test_the_example_names_a_file_that_is_there() -> None:
    """example.json holds inputs of run() alone, and its @ files lie in the package."""
    example = json.loads((PACKAGE / "example.json").read_text())
    for name, value in example.items():
        assert re.search(rf"^        {name}:", (PACKAGE / "run.py").read_text(), re.M), name
        if str(value).startswith("@"):
            assert (PACKAGE / value[1:]).is_file()


def test_the_package_imports_nothing_of_its_neighbours() -> None:
    """Every import is the standard library's, a pinned requirement's or a sibling's."""
    siblings = {path.stem for path in PACKAGE.glob("*.py")} | {"tools"}
    # What the pins bring along and the code names.
    allowed = {
        "av",
        "cog",
        "num2words",
        "numpy",
        "safetensors",
        "scipy",
        "torch",
        "transformers",
        "tokenizers",
        "PIL",
    }
    import sys

    for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("tools/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in (name.split(".")[0] for name in names):
                assert name in siblings | allowed | sys.stdlib_module_names, f"{path.name}: {name}"


def test_no_sibling_hides_a_module_of_the_standard_library() -> None:
    """`python -m` puts the folder first on the path."""
    import sys

    assert not {path.stem for path in PACKAGE.glob("*.py")} & set(sys.stdlib_module_names)
