"""A package's source as it travels to the replicas of a Ray cluster.

It goes into the arguments of the deployment, so no node but the one that builds the application
needs the folder, and a replica keeps the source with which it was started. Weights and `.venv` stay
on each node. Standard library and PyYAML only: `callme ray deploy` reads it without Ray.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cog_image import CannotDeployError, read_dockerignore, read_image_parts

SCHEMA_SCRIPT = Path(__file__).resolve().parent.parent / "router" / "models" / "runner_schema.py"
# What each node has of its own.
OWN = (".venv", "weights")
UNPACKED = frozenset({*OWN, ".cog", ".git", "__pycache__", ".mypy_cache", ".ruff_cache"})
# Serve's controller keeps it in its checkpoint.
MAX_SOURCE_BYTES = 8 << 20


def read_source(folder: Path) -> dict[str, bytes]:
    """The files of the package, by their path in it: without weights, environments, caches and the
    plain names of .dockerignore. Raises CannotDeployError when they are too large."""
    ignored = {p for p in read_dockerignore(folder) if not set(p) & set("*?[!")}
    files = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        places = {str(p) for p in (inside, *inside.parents)}
        if path.is_file() and not UNPACKED & set(inside.parts) and not ignored & places:
            files[str(inside)] = path.read_bytes()
    if sum(map(len, files.values())) > MAX_SOURCE_BYTES:
        limit = f"{MAX_SOURCE_BYTES >> 20} MiB"
        raise CannotDeployError(f"Cannot deploy {folder.name}: over {limit} beside its weights")
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """The same for the same files; 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name, content in sorted(files.items()):
        found.update(f"{len(name)} {name} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files as one tar archive: the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def unpack(packed: bytes, folder: Path, node: Path) -> None:
    """The archive's files in `folder`, with links to what `node`, this node's copy of the package,
    has of its own."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    for name in OWN:
        if (node / name).is_dir():
            (folder / name).symlink_to(node / name)


def python_of(folder: Path) -> str:
    """The interpreter of the package's own environment, where it has one; else this one."""
    own = folder / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def read_schema(folder: Path, runner: str) -> dict[str, Any]:
    """The runner's OpenAPI document, read by the package's interpreter. Raises
    CannotDeployError."""
    command = [python_of(folder), str(SCHEMA_SCRIPT), runner]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if done.returncode != 0:
        raise CannotDeployError(f"Cannot read the inputs of {folder.name}: {done.stderr[-2000:]}")
    schema: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["schema"]
    return schema


def describe(folder: Path) -> dict[str, Any]:
    """What `callme ray` must know of the package. Raises CannotDeployError."""
    parts = read_image_parts(folder)
    found = digest(read_source(folder))
    return {"digest": found, "gpu": parts.gpu, "concurrency": parts.concurrency}


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(describe(Path(sys.argv[1]))) + "\n")
    except CannotDeployError as error:
        sys.exit(str(error))
