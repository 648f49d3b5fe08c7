"""What each package's image holds: everything that serving needs, and nothing else."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
from modal import FilePatternMatcher

from tests.packaging.isolated import ROOT, cog_image, files_in_image

PACKAGES = sorted(p.parent for p in ROOT.glob("*/cog.yaml"))
CONFIGURATION = {"cog.yaml", "requirements.txt"}
# What the runner reads beside its modules. fluency's demo weights are made by `make weights`, or
# by set-up in an image that was built without them.
READ_AT_RUN_TIME = {
    "fluency": {"repetitions.json", "score_map.json", "spoken_forms.json"},
    "grounding": {
        "classes.json",
        "weights/demo/model.safetensors",
        # Not read, but who passes the weights on must pass these on too.
        "weights/demo/LICENSE.human-models.txt",
        "weights/demo/LICENSE.nanodet.txt",
    },
    "sketch2real": {
        "weights/demo/controlnet/config.json",
        "weights/demo/controlnet/diffusion_pytorch_model.safetensors",
        "weights/demo/model_index.json",
        "weights/demo/scheduler/scheduler_config.json",
        "weights/demo/sketch2real.json",
        "weights/demo/text_encoder/config.json",
        "weights/demo/text_encoder/model.safetensors",
        "weights/demo/tokenizer/merges.txt",
        "weights/demo/tokenizer/tokenizer.json",
        "weights/demo/tokenizer/tokenizer_config.json",
        "weights/demo/tokenizer/vocab.json",
        "weights/demo/unet/config.json",
        "weights/demo/unet/diffusion_pytorch_model.safetensors",
        "weights/demo/vae/config.json",
        "weights/demo/vae/diffusion_pytorch_model.safetensors",
    },
}
# What lies about on a machine that builds.
LEFT_BEHIND = (
    ".cog/environments/1/lib/python3.11/site-packages/torch/nn.py",
    ".cog/install.lock",
    ".cog/install.log",
    ".git/HEAD",
    ".mypy_cache/3.11/run.data.json",
    ".pytest_cache/README.md",
    ".ruff_cache/0.17.6/1",
    ".venv/lib/python3.11/site-packages/torch/nn.py",
    "__pycache__/run.cpython-311.pyc",
    "tools/__pycache__/__init__.cpython-311.pyc",
    "weights/__pycache__/x.pyc",
)

each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)


def modules_from(runner: Path) -> set[str]:
    """The files that importing the runner can import from its own folder, functions' own imports
    included."""
    folder, found, waiting = runner.parent, set[str](), [runner]
    while waiting:
        path = waiting.pop()
        found.add(str(path.relative_to(folder)))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                places = [folder.joinpath(*parts[: i + 1]) for i in range(len(parts))]
                files = [f for p in places for f in (p.with_suffix(".py"), p / "__init__.py")]
                waiting += [
                    f for f in files if f.is_file() and str(f.relative_to(folder)) not in found
                ]
    return found


def git(folder: Path, *command: str) -> list[str]:
    """What a git command prints, line by line."""
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# For Latin to Arabic; for Chinese, Japanese and Korean; and what joins and orders letters.
FONTS = {"fonts-dejavu-core", "fonts-wqy-microhei", "libfribidi0"}


@each_package
def test_a_package_that_draws_words_has_fonts_for_them(package: Path) -> None:
    """Pillow's own font has ASCII only, and a slim base has no other."""
    modules = [(package / name).read_text() for name in modules_from(package / "run.py")]
    draws = any("ImageFont" in text for text in modules)
    installed = set(cog_image.read_image_parts(package).system_packages)
    assert installed >= FONTS if draws else not installed & FONTS


@each_package
def test_what_serving_needs_is_in_the_image(package: Path) -> None:
    """Runner, configuration, every module that can be imported, every file that is read."""
    needed = CONFIGURATION | modules_from(package / "run.py") | READ_AT_RUN_TIME[package.name]
    assert needed - files_in_image(package) == set()


@each_package
def test_what_serving_does_not_need_is_not(package: Path) -> None:
    """No tools, no samples, no README: of the project's files only what the runner uses."""
    files = set(git(package, "ls-files", "--cached", "--others", "--exclude-standard"))
    assert {"README.md", "example.json", "tools/__init__.py", ".dockerignore"} <= files
    needed = CONFIGURATION | modules_from(package / "run.py") | READ_AT_RUN_TIME[package.name]
    assert (files & files_in_image(package)) - needed == set()


@each_package
def test_what_a_machine_leaves_behind_is_not_sent(package: Path) -> None:
    """Nor is the folder that `cog build` itself needs kept from it."""
    is_ignored = FilePatternMatcher(*cog_image.read_dockerignore(package))
    assert [file for file in LEFT_BEHIND if not is_ignored(Path(file))] == []
    assert not is_ignored(Path(".cog"))
    assert not is_ignored(Path(".cog/openapi_schema.json"))
    assert not is_ignored(Path("weights/demo/model.safetensors"))


@each_package
def test_cog_reads_the_patterns_as_docker_does(package: Path, tmp_path: Path) -> None:
    """Cog applies gitignore's rules to .dockerignore when it looks for weights: both agree."""
    git(tmp_path, "init", "--quiet")
    patterns = (package / ".dockerignore").read_text()
    (tmp_path / ".git" / "info" / "exclude").write_text(patterns)
    is_ignored = FilePatternMatcher(*cog_image.read_dockerignore(package))
    left_behind = [f for f in LEFT_BEHIND if not f.startswith(".git/")]
    files = [*git(package, "ls-files"), *left_behind]
    ignored = git(tmp_path, "check-ignore", "--no-index", "--", *files)
    assert set(ignored) == {f for f in files if is_ignored(Path(f))}
