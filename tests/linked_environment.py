"""Gives a fresh virtual environment what some requirements bring, as links to the files of the
environment that runs the tests: its versions are the pinned ones, and a gigabyte need not be
unpacked and compiled again. What has been compiled there so far is linked too.

    python tests/linked_environment.py FOLDER REQUIREMENT...

pip would install the same files: tests/test_pins.py compares each package's requirements with what
`make setup` has installed. The programs that go to `bin` are left out.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path, PurePath

from packaging.requirements import Requirement


def link(requirements: Iterable[str], environment: Path) -> None:
    """Link the distributions of `requirements`, and of all that they require in turn, into the
    empty environment in this folder, which must be of this Python's version.

    Raises: LookupError if one is not installed here, in another version, or without a RECORD;
    FileExistsError if the environment has one of the files already.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = environment / "lib" / version / "site-packages"
    made: set[Path] = set()
    linked: set[Path] = set()
    for found in _closure(requirements):
        if found.files is None:
            raise LookupError(f"{found.name} {found.version} does not say which files it has")
        for file in found.files:
            if file.parts[0] == ".." or Path(file) in linked:  # two distributions may share a file
                continue
            linked.add(Path(file))
            source, target = Path(str(found.locate_file(file))), site / file
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            _link_file(source, target)
            if file.suffix == ".py" and (compiled := _compiled(file)) not in linked:
                linked.add(compiled)
                (site / compiled).parent.mkdir(exist_ok=True)
                _link_file(Path(str(found.locate_file(compiled))), site / compiled)


def _compiled(source: PurePath) -> Path:
    """Where Python keeps the compiled form of this file."""
    return Path(cache_from_source(str(source)))


def _closure(requirements: Iterable[str]) -> Iterable[Distribution]:
    """The distributions, each once. Raises LookupError."""
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        try:
            one = distribution(wanted.name)
        except PackageNotFoundError as error:
            raise LookupError(f"{wanted} is not installed here") from error
        if not wanted.specifier.contains(one.version, prereleases=True):
            raise LookupError(f"{wanted} is not installed here, but {one.version} is")
        found[one.name] = one
        extras = wanted.extras or {""}
        for line in one.requires or []:
            needed = Requirement(line)
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)
    return found.values()


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        if source.suffix != ".pyc":  # what is compiled may be deleted at any time
            raise
    except FileExistsError:
        raise
    except OSError:  # another disk
        shutil.copy2(source, target)


if __name__ == "__main__":
    link(sys.argv[2:], Path(sys.argv[1]))
