"""What every package owes: Cog's own schema, a signature that Cog can read, and solitude."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(p.parent for p in ROOT.glob("*/cog.yaml"))
ALL = [*PACKAGES, ROOT / "tests" / "packages" / "echo"]
# config_schema_v1.0.json of cog 0.23.1 (Apache-2.0), as its source distribution has it.
SCHEMA = json.loads((ROOT / "tests" / "golden" / "cog" / "config_schema_v1.0.json").read_text())
PLAIN = {"str", "int", "float", "bool", "Path", "File", "Secret"}


@pytest.mark.parametrize("folder", ALL, ids=lambda p: p.name)
def test_cog_yaml_passes_cogs_own_schema(folder: Path) -> None:
    """Draft 7, and none of the deprecated keys."""
    config = yaml.safe_load((folder / "cog.yaml").read_text())
    jsonschema.Draft7Validator(SCHEMA).validate(config)
    assert "predict" not in config
    assert not {"python_packages", "pre_install"} & config["build"].keys()
    assert config["run"] == "run.py:Runner"


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: p.name)
def test_a_gpu_build_is_one_that_cog_accepts(folder: Path) -> None:
    """torch from 2.12 on needs an explicit CUDA version, and torch must be pinned."""
    build = yaml.safe_load((folder / "cog.yaml").read_text())["build"]
    assert build["gpu"] is True
    assert isinstance(build["cuda"], str)
    assert re.search(r"^torch==", (folder / "requirements.txt").read_text(), re.M)


def run_of(folder: Path) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.Module]:
    """The runner's `run` and its module."""
    module = ast.parse((folder / "run.py").read_text())
    (runner,) = [n for n in module.body if isinstance(n, ast.ClassDef) and n.name == "Runner"]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    (run,) = [n for n in runner.body if isinstance(n, functions) and n.name == "run"]
    return run, module


def is_plain(annotation: ast.expr) -> bool:
    """A type that Cog's static reading knows: plain, `X | None`, or `list[X]`."""
    if isinstance(annotation, ast.Name):
        return annotation.id in PLAIN
    if isinstance(annotation, ast.BinOp):
        return (
            is_plain(annotation.left)
            and isinstance(annotation.right, ast.Constant)
            and annotation.right.value is None
        )
    if isinstance(annotation, ast.Subscript):
        return (
            isinstance(annotation.value, ast.Name)
            and annotation.value.id == "list"
            and is_plain(annotation.slice)
        )
    return False


@pytest.mark.parametrize("folder", ALL, ids=lambda p: p.name)
def test_run_obeys_static_inference(folder: Path) -> None:
    """Every parameter and the return annotated; literal defaults and limits; no star, no
    keyword-only; what defaults to None is `X | None`."""
    run, module = run_of(folder)
    constants = {
        t.id
        for n in module.body
        if isinstance(n, (ast.Assign, ast.AnnAssign))
        for t in (n.targets if isinstance(n, ast.Assign) else [n.target])
        if isinstance(t, ast.Name)
    }
    arguments = run.args
    assert not (
        arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs
    )
    assert isinstance(run.returns, ast.Name)
    parameters = arguments.args[1:]
    defaults = [None] * (len(parameters) - len(arguments.defaults)) + list(arguments.defaults)
    for parameter, default in zip(parameters, defaults, strict=True):
        assert parameter.annotation is not None, parameter.arg
        assert is_plain(parameter.annotation), parameter.arg
        if default is None:
            continue
        assert isinstance(default, ast.Call), parameter.arg
        given = {k.arg: k.value for k in default.keywords}
        assert "description" in given, parameter.arg
        for key, value in given.items():
            assert _is_literal(value, constants), f"{parameter.arg}: {key}"
        is_none = isinstance(d := given.get("default"), ast.Constant) and d.value is None
        assert not is_none or isinstance(parameter.annotation, ast.BinOp), parameter.arg


def _is_literal(value: ast.expr, constants: set[str]) -> bool:
    if isinstance(value, ast.Name):
        return value.id in constants
    try:
        ast.literal_eval(value)
    except ValueError:
        # Adjacent strings are one Constant; anything else is an expression Cog cannot read.
        return False
    return True


@pytest.mark.parametrize("folder", ALL, ids=lambda p: p.name)
def test_descriptions_and_defaults_are_one_literal(folder: Path) -> None:
    """Cog reads them statically: of adjacent literals the quotes would reach the API docs."""
    source = (folder / "run.py").read_text()
    module = ast.parse(source)
    texts = [
        k.value for k in ast.walk(module) if isinstance(k, ast.keyword) and k.arg == "description"
    ]
    named = {t.id for t in texts if isinstance(t, ast.Name)}
    texts += [
        n.value
        for n in module.body
        if isinstance(n, ast.Assign)
        and isinstance(n.targets[0], ast.Name)
        and n.targets[0].id in named
    ]
    literals = [t for t in texts if isinstance(t, ast.Constant)]
    assert literals
    for literal in literals:
        assert literal.lineno == literal.end_lineno, ast.get_source_segment(source, literal)


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: p.name)
def test_a_package_imports_nobody_elses_code(folder: Path) -> None:
    """Neither the router nor another package; and no module of its own hides the library's."""
    others = {p.name for p in PACKAGES if p != folder} | {"router", "api"}
    for path in folder.rglob("*.py"):
        if "weights" in path.relative_to(folder).parts[:-1]:
            continue
        if path.parent == folder:
            assert path.stem not in sys.stdlib_module_names, path.name
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name}: a runner's siblings are top-level modules"
                names = [node.module or ""]
            assert not others & {n.partition(".")[0] for n in names}, path.name


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: p.name)
def test_an_example_names_inputs_and_files_that_exist(folder: Path) -> None:
    """example.json fits the runner, and its files ship with a licence."""
    example = json.loads((folder / "example.json").read_text())
    run, _ = run_of(folder)
    assert set(example) <= {a.arg for a in run.args.args}
    for value in example.values():
        if isinstance(value, str) and value.startswith("@"):
            assert (folder / value[1:]).is_file()
    assert any((folder / "samples").glob("LICENCE*"))


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        ("limits.py", ("grounding", "sketch2real")),
        ("av1.py", ("grounding", "sketch2real")),
        ("fonts.py", ("grounding", "fluency")),
    ],
)
def test_what_packages_share_is_the_same(module: str, packages: tuple[str, str]) -> None:
    """They may not import each other, so what they have in common stands in both, word for word."""
    first, second = ((ROOT / package / module).read_text() for package in packages)
    assert first == second


def test_a_failed_batch_is_forgotten_in_one_way() -> None:
    """`forget_locals` is the same function wherever a package batches."""
    paths = ("fluency/batching.py", "grounding/batching.py", "sketch2real/memory.py")
    modules = [ast.parse((ROOT / path).read_text()).body for path in paths]
    functions = [n for body in modules for n in body if isinstance(n, ast.FunctionDef)]
    found = [ast.dump(n) for n in functions if n.name == "forget_locals"]
    assert len(found) == 3
    assert len(set(found)) == 1
