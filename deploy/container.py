"""Build a package's image with a plain Docker engine: `python deploy/container.py MODEL`.

What it is made of comes from cog.yaml; how, stands in container/Dockerfile. Options after
`--` go to `docker build`, such as `--network host` or `--build-arg UV_INDEX=…`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cog_image import (
    UNCOPIED,
    CannotDeployError,
    ImageParts,
    read_dockerignore,
    read_image_parts,
    schema_command,
)

HERE = Path(__file__).resolve().parent
SCHEMA_SCRIPT = HERE.parent / "router" / "models" / "runner_schema.py"
UV_VERSION = "0.13.9"
EPILOG = "What follows -- is for `docker build`."


def build_arguments(parts: ImageParts, base: str) -> dict[str, str]:
    """The Dockerfile's arguments for these parts; `base` "" for the one that fits."""
    python_base = f"python:{parts.python_version}-slim-bookworm"
    return {
        "BASE": base or parts.cuda_image or python_base,
        "SYSTEM_PACKAGES": " ".join(parts.system_packages),
        "UV_VERSION": UV_VERSION,
        "PYTHON_VERSION": parts.python_version,
        "PACKAGES": shlex.join(parts.packages),
        "RUN_COMMANDS": "\n".join(parts.run_commands),
        "SCHEMA_COMMAND": schema_command("/opt/callme/runner_schema.py", parts.runner),
        "RUNNER": parts.runner,
        "CONCURRENCY": str(parts.concurrency),
    }


def lay_out(folder: Path, parts: ImageParts, context: Path) -> None:
    """Fill the build's context: the package with what it ignores, its requirements and
    environment, the script."""
    ignored = shutil.ignore_patterns(*(name.removeprefix("**/") for name in UNCOPIED))
    shutil.copytree(folder, context / "src", ignore=ignored)
    (context / ".dockerignore").write_text("".join(map(_below_src, read_dockerignore(folder))))
    requirements = (folder / parts.requirements).read_text() if parts.requirements else ""
    (context / "requirements.txt").write_text(requirements)
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in parts.environment.items()]
    (context / "environment").write_text("".join(lines))
    shutil.copy(SCHEMA_SCRIPT, context / "runner_schema.py")
    shutil.copy(HERE / "container" / "Dockerfile", context / "Dockerfile")


def _below_src(pattern: str) -> str:
    """A line of the context's .dockerignore: the package's own pattern, for src/."""
    negation = "!" if pattern.startswith("!") else ""
    return f"{negation}src/{pattern.removeprefix('!')}\n"


def build(folder: Path, tag: str, base: str, options: Sequence[str]) -> int:
    """Build the image; docker's exit status. Raises CannotDeployError."""
    docker = shutil.which("docker")
    if docker is None:
        raise CannotDeployError("Cannot build: there is no `docker` on PATH")
    parts = read_image_parts(folder)
    told = [f"--build-arg={k}={v}" for k, v in build_arguments(parts, base).items()]
    with tempfile.TemporaryDirectory(prefix="callme-build-") as scratch:
        context = Path(scratch)
        lay_out(folder, parts, context)
        command = [docker, "build", "--tag", tag, *told, *options, str(context)]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - docker, as asked


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    parser.add_argument("model", help="name or folder of a package")
    parser.add_argument("--tag", help="name of the image; default: callme-MODEL")
    parser.add_argument("--base", default="", help="another base image than cog.yaml's")
    # argparse takes what follows `--` only where all positional arguments stand together.
    argv = sys.argv[1:]
    cut = argv.index("--") if "--" in argv else len(argv)
    told, options = parser.parse_args(argv[:cut]), argv[cut + 1 :]
    named = Path(told.model)
    folder = named if (named / "cog.yaml").is_file() else HERE.parent / told.model
    try:
        return build(folder.resolve(), told.tag or f"callme-{folder.name}", told.base, options)
    except CannotDeployError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's own word
        return 2


if __name__ == "__main__":
    sys.exit(main())
