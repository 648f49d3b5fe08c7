"""A package's own environment: the folder `.venv` in it, and whether it is whole.

`callme install` puts a mark into the environment before it begins to work on it. At the end it
writes a note of what the environment was made for, and removes the mark. So an environment that
was interrupted is never used. A `.venv` with neither was made by a person. It is used as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

NAME = ".venv"
UNFINISHED = "callme-unfinished"
NOTE = "callme.json"


@dataclass(frozen=True, slots=True)
class Note:
    """What an environment was made for. `digest`: of the requirements (`Requirements.digest`).
    `python`: the version of its interpreter, as "3.11.7"."""

    digest: str
    python: str


def own_python(folder: Path) -> Path | None:
    """Return the interpreter of the package's own environment; None when it has none that can be
    used."""
    python = folder / NAME / "bin" / "python"
    return python if python.exists() and not is_unfinished(folder) else None


def is_unfinished(folder: Path) -> bool:
    """Whether an installation is at work on the environment, or was interrupted."""
    return (folder / NAME / UNFINISHED).exists()


def read_note(folder: Path) -> Note | None:
    """Return the note of a finished environment; None when `callme install` has not made it."""
    try:
        found = orjson.loads((folder / NAME / NOTE).read_bytes())
        return Note(str(found["digest"]), str(found["python"]))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def begin(folder: Path) -> None:
    """Mark the environment as unfinished. Raises OSError."""
    environment = folder / NAME
    environment.mkdir(exist_ok=True)
    (environment / UNFINISHED).touch()
    (environment / ".gitignore").write_text("*\n")


def finish(folder: Path, note: Note) -> None:
    """Write the note, and then remove the mark. Raises OSError."""
    environment = folder / NAME
    part = environment / f"{NOTE}.part"
    part.write_bytes(orjson.dumps(asdict(note)))
    part.replace(environment / NOTE)
    (environment / UNFINISHED).unlink(missing_ok=True)


def site_packages(folder: Path) -> list[str]:
    """Return the folders in which the environment has its distributions."""
    return [str(path) for path in (folder / NAME).glob("lib*/python*/site-packages")]
