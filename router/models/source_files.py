"""The files of a package that its process is made from, and whether they have changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

UNREAD_FOLDERS = frozenset({".venv", ".cog", ".git", "__pycache__", "weights", "node_modules"})
# Beside the Python files.
SHOWN_ONLY = frozenset({"example.json", "view.json"})  # they do not change the schema
NAMES = frozenset({"cog.yaml", *SHOWN_ONLY})

Stamp = tuple[int, int]  # time of the last change in ns, size in bytes


def source_files(folder: Path) -> Iterator[Path]:
    """Return the package's Python files, cog.yaml, example.json and view.json, in a
    fixed order."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - UNREAD_FOLDERS)
        for name in sorted(names):
            if name.endswith(".py") or name in NAMES:
                yield Path(parent, name)


def stamps(folder: Path) -> Mapping[str, Stamp]:
    """Return a stamp for each source file and each file of requirements, by its path within the
    package."""
    found: dict[str, Stamp] = {}
    for path in (*source_files(folder), *folder.glob("requirements*.txt")):
        with contextlib.suppress(OSError):  # deleted since it was listed
            stat = path.stat()
            found[str(path.relative_to(folder))] = stat.st_mtime_ns, stat.st_size
    return found


def changed(before: Mapping[str, Stamp], now: Mapping[str, Stamp]) -> list[str]:
    """Return the files that were changed, added or deleted, sorted."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
