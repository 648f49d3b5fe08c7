"""A package's own environment: `.venv` in its folder, and whether it is whole.

`callme install` makes each environment from nothing in a folder of its own, below MADE, and then
points the link `.venv` at it. So a model that runs goes on with the environment that it was
started with, and an installation that fails or is interrupted has changed nothing. Only when
requirements have changed, the present environment is changed, which is quicker. It has a mark
meanwhile, and is not used until that is done. A `.venv` without a NOTE was made by a person. It is
used as it is, until `callme install --again` replaces it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil

NAME = ".venv"
MADE = Path(".cog", "environments")
UNFINISHED = "callme-unfinished"
NOTE = "callme.json"
OLD = "old-"


@dataclass(frozen=True, slots=True)
class Note:
    """What an environment was made for. `digest`: of the requirements (`Requirements.digest`).
    `python`: the version of its interpreter, as "3.11.7"."""

    digest: str
    python: str


def own_python(folder: Path) -> Path | None:
    """Return the interpreter of the package's own environment; None when it has none that can be
    used."""
    python = present(folder) / "bin" / "python"
    return python if python.exists() and not is_unfinished(folder) else None


def present(folder: Path) -> Path:
    """Return the environment that a model is started with now; it need not exist."""
    return (folder / NAME).resolve()


def next_one(folder: Path) -> Path:
    """Return the folder for a new environment; it does not exist. One that was interrupted is
    deleted."""
    numbers = [0]
    for made in (folder / MADE).glob("*"):
        if has_mark(made) and made.resolve() != present(folder):
            shutil.rmtree(made, ignore_errors=True)
        elif made.name.isdigit():
            numbers.append(int(made.name))
    return (folder / MADE / str(max(numbers) + 1)).resolve()


def publish(folder: Path, made: Path) -> None:
    """Start models with the environment `made` from now on. Raises OSError; then `.venv` is as it
    was."""
    link, new = folder / NAME, folder / MADE / "new"
    new.unlink(missing_ok=True)
    new.symlink_to(made.relative_to(folder.resolve()))
    if link.is_symlink() or not link.is_dir():
        new.replace(link)
        return
    # A person's, or an older `callme install`'s. It is kept until the link is in its place.
    old = Path(tempfile.mkdtemp(prefix=OLD, dir=folder / MADE))
    link.replace(old)
    try:
        new.replace(link)
    except BaseException:
        old.replace(link)
        raise
    shutil.rmtree(old, ignore_errors=True)


def delete_unused(folder: Path) -> None:
    """Delete the environments that no model is started with any more, and none runs with."""
    for made in (folder / MADE).glob("*"):
        ours = made.name.isdigit() or made.name.startswith(OLD)
        if ours and made.resolve() != present(folder) and not in_use(made):
            shutil.rmtree(made, ignore_errors=True)


def in_use(environment: Path) -> bool:
    """Whether a process runs with this environment's interpreter. One whose command cannot be read
    counts as one."""
    programs = environment.resolve() / "bin"
    return any(_runs_from(programs, process) for process in psutil.process_iter())


def _runs_from(folder: Path, process: psutil.Process) -> bool:
    try:
        program = Path(*process.cmdline()[:1])
        if program.parent.name != folder.name:
            return False
        # Not the program itself: it is a link to the interpreter that made the environment.
        beside = program.parent if program.is_absolute() else Path(process.cwd(), program.parent)
        return beside.resolve() == folder
    except psutil.AccessDenied:
        return True
    except psutil.Error:  # it has ended
        return False


def is_unfinished(folder: Path) -> bool:
    """Whether an installation is at work on the environment, or was interrupted."""
    return has_mark(folder / NAME)


def has_mark(environment: Path) -> bool:
    """Whether this environment is unfinished."""
    return (environment / UNFINISHED).exists()


def read_note(folder: Path) -> Note | None:
    """Return the note of the present environment; None when `callme install` has not made it."""
    return note_in(folder / NAME)


def note_in(environment: Path) -> Note | None:
    """Return the note of a finished environment; None when there is none."""
    try:
        found = orjson.loads((environment / NOTE).read_bytes())
        return Note(str(found["digest"]), str(found["python"]))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def begin(environment: Path) -> None:
    """Mark the environment as unfinished. Raises OSError."""
    environment.mkdir(parents=True, exist_ok=True)
    (environment / UNFINISHED).touch()
    (environment / ".gitignore").write_text("*\n")


def finish(environment: Path, note: Note) -> None:
    """Write the note, and then remove the mark. Raises OSError."""
    part = environment / f"{NOTE}.part"
    part.write_bytes(orjson.dumps(asdict(note)))
    part.replace(environment / NOTE)
    (environment / UNFINISHED).unlink(missing_ok=True)


def site_packages(folder: Path) -> list[str]:
    """Return the folders in which the environment has its distributions."""
    return [str(path) for path in (folder / NAME).glob("lib*/python*/site-packages")]
