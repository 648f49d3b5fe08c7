"""Makes a package's own environment with pip, from whatever index pip is configured for.

Nothing here downloads a Python: one of this machine is used, or the message says which is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import IO

from router.models import environment
from router.models.environment import Note
from router.models.process_group import inherited_environment
from router.models.requirements import Requirements, lacking, line_of, runtime

LOG = Path(".cog", "install.log")
LOCK = Path(".cog", "install.lock")
ASK_LIMIT_S = 20.0
ASK_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
ASK_PIP = "import ensurepip"
# pip prints this when everything is downloaded and built, before it changes the environment.
CHANGES_BEGIN = "Installing collected packages"
NO_ANSWER = "WARNING: Retrying"
MINORS = range(8, 20)
# What pip adds to a requirement that it does not find.
VERSIONS = re.compile(r" \(from versions: ([^)]*)\)")
NEWEST = 3

OnLine = Callable[[str], None]
Run = Callable[[Sequence[str], OnLine], int]


class InstallError(Exception):
    """The environment cannot be made. The message says why, and has no full path."""


class State(StrEnum):
    """How a package's environment is. The value is what a person reads."""

    NONE_NEEDED = "the router's own environment has what it needs"
    READY = "its own environment is up to date"
    BY_HAND = "its own environment was not made by callme install"
    MISSING = "it has no environment of its own"
    CHANGED = "its requirements have changed"
    UNFINISHED = "the installation of its environment was interrupted"

    @property
    def needs_install(self) -> bool:
        """Whether `callme install` has something to do."""
        return self in (State.MISSING, State.CHANGED, State.UNFINISHED)


def state_of(folder: Path, needs: Requirements) -> State:
    """Return how the environment of the package in `folder` is."""
    if environment.own_python(folder):
        note = environment.read_note(folder)
        if note is None:
            return State.BY_HAND
        return State.READY if note.digest == needs.digest() else State.CHANGED
    if environment.is_unfinished(folder):
        return State.UNFINISHED
    return State.MISSING if lacking(needs) else State.NONE_NEEDED


def install(folder: Path, needs: Requirements, on_line: OnLine, *, again: bool = False) -> Note:
    """Make or change the environment of the package in `folder`, and return what it was made for.

    `on_line` gets each line that pip prints; all of them are also in LOG. With `again`, or for
    another Python, it is made from nothing beside the present one, with which models go on until
    they are restarted. Raises InstallError; then the environment is as it was, or is marked as
    unfinished.
    """
    with _errors(), _log(folder) as log:
        before = environment.read_note(folder)
        by_hand = before is None and environment.own_python(folder) is not None
        if by_hand and not again:
            raise InstallError(f"{environment.NAME} was not made by callme install: see --again")
        python = find_python(needs.python)
        version = version_of(python) or ""
        note = Note(needs.digest(), version)
        present = environment.present(folder)
        if before and not again and _minor(before.python) == _minor(version):
            _fill(present, needs, note, partial(_run, present, folder, log), on_line)
            return note
        if present == folder.resolve() / environment.NAME and environment.in_use(present):
            raise InstallError(
                f"a model runs with {environment.NAME}: callme unload {folder.name}, then again"
            )
        made = environment.next_one(folder)
        run = partial(_run, made, folder, log)
        try:
            environment.begin(made)
            bare = [] if _runs(python, ASK_PIP) else ["--without-pip"]  # as Debian's without venv
            if run([str(python), "-m", "venv", *bare, str(made)], on_line):
                raise InstallError(f"Python {version} cannot make an environment; see {LOG}")
            _fill(made, needs, note, run, on_line)
            environment.publish(folder, made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        environment.delete_unused(folder)
        return note


def _fill(own: Path, needs: Requirements, note: Note, run: Run, on_line: OnLine) -> None:
    """Install into the environment `own` what the package needs. Raises InstallError; then it is as
    it was, or is marked as unfinished."""
    before = environment.note_in(own)
    environment.begin(own)
    python = own / "bin" / "python"
    pip = [str(python), "-m", "pip"]
    if not _runs(python, "import pip"):
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
    wanted = ["--requirement", str(needs.file)] if needs.file else []
    options = ("--no-input", "--disable-pip-version-check")
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        on_line(line)

    if run([*pip, "install", *options, *wanted, *needs.packages, *runtime()], keep):
        if before and not any(line.startswith(CHANGES_BEGIN) for line in lines):
            environment.finish(own, before)
        raise InstallError(_why(needs, lines))
    environment.finish(own, note)


def run_commands(folder: Path, commands: Sequence[Sequence[str]], on_line: OnLine) -> None:
    """Run the commands in the folder, with its own environment first on PATH. Raises InstallError
    for the first that fails."""
    with _errors(), _log(folder) as log:
        for argv in commands:
            if status := _run(environment.present(folder), folder, log, argv, on_line):
                raise InstallError(f"`{argv[-1]}` ended with {status}")


def system_command(names: Sequence[str]) -> list[str]:
    """Return the command that installs Debian packages."""
    root = [] if os.geteuid() == 0 else ["sudo"]
    return [*root, "apt-get", "install", "--yes", "--no-install-recommends", *names]


def missing_system_packages(names: Sequence[str]) -> list[str]:
    """Return those Debian packages that are not installed; all where this cannot be told."""
    query = shutil.which("dpkg-query")
    if query is None:
        return list(names)
    return [
        name
        for name in names
        if _ask([query, "--show", "--showformat=${db:Status-Abbrev}", name])[:2] != "ii"
    ]


def find_python(wanted: str) -> Path:
    """Return an interpreter of this version ("3.11"); with "", the router's own. Raises
    InstallError when this machine has none."""
    own = Path(sys.executable)
    if not wanted or _minor(version_of(own) or "") == wanted:
        return own
    for path in _pythons(wanted):
        if _minor(version_of(path) or "") == wanted:
            return path
    others = [f"3.{n}" for n in MINORS if any(version_of(path) for path in _pythons(f"3.{n}"))]
    there = ", ".join(others) or _minor(version_of(own) or "")
    raise InstallError(
        f"its cog.yaml names Python {wanted}, and this machine has {there}: "
        f"install Python {wanted}, or name another one in cog.yaml"
    )


def version_of(python: Path) -> str | None:
    """Return the interpreter's version, as "3.11.7"; None when it does not run."""
    return _ask([str(python), "-c", ASK_VERSION]) or None


def _pythons(version: str) -> Iterator[Path]:
    """The interpreters that may have this version: on PATH, pyenv's and uv's."""
    name = f"python{version}"
    for folder in os.get_exec_path():
        if (path := Path(folder, name)).exists():
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}*/bin/{name}"))
    if uv := shutil.which("uv"):
        found = _ask([uv, "python", "find", "--no-python-downloads", "--offline", version])
        if found:
            yield Path(found)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _runs(python: Path, code: str) -> bool:
    argv = [str(python), "-c", code]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0  # noqa: S603 - an interpreter of this machine


def _ask(argv: Sequence[str]) -> str:
    """What the program prints; "" when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of this machine
            argv, capture_output=True, text=True, timeout=ASK_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _run(own: Path, folder: Path, log: IO[str], argv: Sequence[str], on_line: OnLine) -> int:
    """Run a program in the folder with the environment `own`, pass on each line that it prints, and
    return its status."""
    log.write(f"$ {' '.join(argv)}\n")
    with subprocess.Popen(  # noqa: S603 - pip, or what the person has asked for
        argv,
        cwd=folder,
        env=_environment(own),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        assert child.stdout is not None  # noqa: S101 - a pipe, as asked for
        try:
            for line in child.stdout:
                log.write(line)
                log.flush()
                on_line(line.rstrip("\n"))
        except BaseException:
            child.kill()
            raise
        return child.wait()


def _environment(own: Path) -> Mapping[str, str]:
    """The person's own environment, which says how pip finds its index, with the package's
    interpreter first on PATH."""
    env = {k: v for k, v in inherited_environment().items() if k != "PYTHONPATH"}
    path = f"{own / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    return {**env, "PATH": path, "VIRTUAL_ENV": str(own), "PYTHONUNBUFFERED": "1"}


def _why(needs: Requirements, lines: Sequence[str]) -> str:
    errors = [line.partition(": ")[2] for line in lines if line.upper().startswith("ERROR: ")]
    reason = errors[0] if errors else next((s for s in reversed(lines) if s), "pip failed")
    place = line_of(needs, reason)
    reason = VERSIONS.sub(_newest, reason)
    unreached = any(line.startswith(NO_ANSWER) for line in lines)
    note = "; the package index did not answer" if unreached else ""
    return f"{reason}{f' ({place})' if place else ''}{note}"


def _newest(found: re.Match[str]) -> str:
    """The last few of the versions that pip lists, oldest first."""
    versions = [version for version in found[1].split(", ") if version != "none"]
    if not versions:
        return "; the index has no such project"
    return f"; the newest are {', '.join(versions[-NEWEST:])}"


@contextlib.contextmanager
def _log(folder: Path) -> Iterator[IO[str]]:
    """The log of one installation. Raises InstallError when another one is at work."""
    (folder / LOG).parent.mkdir(exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InstallError("another `callme install` works on it") from error
        with (folder / LOG).open("w") as log:
            yield log


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else "its folder"
        raise InstallError(f"{name}: {error.strerror}") from error
