"""The package's own papers: signature, requirements, example, sample."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

LITERALS = (ast.Constant, ast.List, ast.UnaryOp)


def test_run_can_be_read_statically(package: Path) -> None:
    """`cog build` infers the API without running Python: everything is annotated and literal."""
    source = (package / "run.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    run = next(n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef) and n.name == "run")
    assert run.returns is not None
    assert not (run.args.vararg or run.args.kwarg or run.args.kwonlyargs)
    parameters = run.args.args[1:]
    assert len(run.args.defaults) == len(parameters)
    for parameter, default in zip(parameters, run.args.defaults, strict=True):
        assert parameter.annotation is not None, parameter.arg
        assert isinstance(default, ast.Call), parameter.arg
        given = {keyword.arg: keyword.value for keyword in default.keywords}
        description = given.pop("description")
        assert isinstance(description, ast.Name)
        text = ast.get_source_segment(source, constants[description.id]) or ""
        # Pieces put together would come out with their quotes in between.
        assert re.fullmatch(r'"[^"\n]+"', text), parameter.arg
        for name, value in given.items():
            assert isinstance(value, LITERALS), (parameter.arg, name)


def test_requirements_are_the_projects_pins(package: Path) -> None:
    """requirements.txt repeats the project's extra, line by line."""
    project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["optional-dependencies"]["sketch2real"]
    assert (package / "requirements.txt").read_text(encoding="utf-8").split() == wanted


def test_nothing_is_imported_from_outside(package: Path) -> None:
    """The folder alone is enough: its modules import each other and what is required, no more."""
    own = {path.stem for path in package.glob("*.py")} | {"tools"}
    allowed = own | set(sys.stdlib_module_names) | {
        "PIL", "cog", "diffusers", "huggingface_hub", "numpy", "pillow_heif", "safetensors",
        "scipy", "skimage", "torch", "torchao", "transformers",
    }  # fmt: skip
    for path in [*package.glob("*.py"), *package.glob("tools/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in allowed, (path.name, name)
    assert not own & set(sys.stdlib_module_names)


def test_example_names_a_file_that_is_there(package: Path) -> None:
    """example.json is flat, names declared inputs, and its @file exists."""
    example = json.loads((package / "example.json").read_text(encoding="utf-8"))
    assert (package / example.pop("image").removeprefix("@")).is_file()
    assert set(example) == {"seed"}


def test_cog_yaml_names_what_exists(package: Path) -> None:
    """cog.yaml points at this runner and these requirements."""
    config = yaml.safe_load((package / "cog.yaml").read_text(encoding="utf-8"))
    assert config["run"] == "run.py:Runner"
    assert (package / config["build"]["python_requirements"]).is_file()


def test_the_sample_is_what_its_script_draws(package: Path, tmp_path: Path) -> None:
    """sketch.png comes from draw.py and nowhere else."""
    shutil.copy(package / "samples" / "draw.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "draw.py"], check=True)
    drawn, kept = (
        np.asarray(Image.open(folder / "sketch.png"), dtype=int)
        for folder in (tmp_path, package / "samples")
    )
    # Another Pillow may round a pixel of an edge otherwise.
    assert np.abs(drawn - kept).mean() < 0.1


@pytest.mark.parametrize("name", ["unet", "controlnet", "vae", "text_encoder"])
def test_demo_weights_are_whole(package: Path, name: str) -> None:
    """The committed weights are files, not pointers, and together under 24 MB."""
    files = list((package / "weights" / "demo").rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 24e6
    part = next(file for file in files if file.parent.name == name)
    assert part.stat().st_size > 100_000
