"""What a package's cog.yaml asks of its environment, and what of it an environment lacks.

Only the distributions that are named are compared, not what they need in turn: pip has made sure
of that where it has installed them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from router.models.catalog import PackageError, read_config

# Requirements files may name others, and extras other extras.
MAX_DEPTH = 8
COMMENT = re.compile(r"(?:^|\s)#.*$")
OTHER_FILE = re.compile(r"(?:-r|--requirement)(?:\s+|=)(\S+)")
EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)(\S+)")
OPTIONS_AFTER = re.compile(r"\s+--\w.*$")  # such as --hash=sha256:…


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a cog.yaml asks for.

    `python`: the version, as "3.11"; "" when none is named. `file`: the requirements file.
    `lines`: what is to be installed, from the file and from `python_packages`. `options`: the
    options for pip in the file. `system_packages`: Debian packages. `commands`: shell commands
    that Cog runs while it builds an image.
    """

    python: str = ""
    file: Path | None = None
    packages: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def names(self, distribution: str) -> bool:
        """Whether it is one of the distributions that are named."""
        return any(_name(line) == canonicalize_name(distribution) for line in self.lines)

    def digest(self) -> str:
        """A hash that changes when another environment is asked for."""
        parts = (self.python, *self.lines, *self.options, *runtime())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def runtime() -> tuple[str, str]:
    """The `cog` and `coglet` that a model's environment needs: those that this router drives."""
    return f"cog=={version('cog')}", f"coglet=={version('coglet')}"


def read_requirements(folder: Path) -> Requirements:
    """Read what the package in `folder` needs. Raises PackageError when it cannot be read."""
    config = read_config(folder / "cog.yaml")
    build = config.get("build") if isinstance(config, dict) else None
    if build is None:
        return Requirements()
    if not isinstance(build, dict):
        raise PackageError("its cog.yaml's `build` must be a mapping")
    packages = _texts(build, "python_packages")
    named = build.get("python_requirements")
    if named is not None and not isinstance(named, str):
        raise PackageError("its cog.yaml's `build.python_requirements` must be a file's name")
    file = folder / named if named else None
    read = list(_read_file(file)) if file else []
    lines = [line for line in read if not line.startswith("-") or EDITABLE.match(line)]
    return Requirements(
        python=_python(build.get("python_version")),
        file=file,
        packages=packages,
        lines=(*lines, *packages),
        options=tuple(line for line in read if line not in lines),
        system_packages=_texts(build, "system_packages"),
        commands=(*_commands(build, "pre_install"), *_commands(build, "run")),
    )


def lacking(needs: Requirements, site_packages: Sequence[str] | None = None) -> list[str]:
    """The lines that the environment with these folders of distributions does not satisfy; without
    folders, the router's own environment.

    An editable one, a path or a URL counts as not satisfied: its version cannot be compared.
    """
    found = distributions(path=list(site_packages)) if site_packages else distributions()
    there: dict[str, Distribution] = {canonicalize_name(d.name): d for d in found if d.name}
    return [line for line in needs.lines if not _is_satisfied(line, there)]


def line_of(needs: Requirements, message: str) -> str:
    """Where the requirement stands that pip's message is about, as "requirements.txt:3"; "" when
    this cannot be told."""
    if needs.file is None:
        return ""
    for number, text in enumerate(needs.file.read_text(errors="replace").splitlines(), 1):
        line = OPTIONS_AFTER.sub("", COMMENT.sub("", text)).strip()
        name = _name(line)
        said = canonicalize_name(message)
        if line and (line in message or (name and re.search(rf"\b{re.escape(name)}\b", said))):
            return f"{needs.file.name}:{number}"
    return ""


def _is_satisfied(line: str, there: Mapping[str, Distribution], depth: int = 0) -> bool:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return False
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return True
    found = there.get(canonicalize_name(wanted.name))
    if found is None or wanted.url or not wanted.specifier.contains(found.version, True):
        return False
    if depth >= MAX_DEPTH:
        return True
    return all(
        _is_satisfied(text, there, depth + 1) for text in _of_extras(found, sorted(wanted.extras))
    )


def _of_extras(found: Distribution, extras: Sequence[str]) -> Iterator[str]:
    """What the distribution needs beside what it always needs, for these extras of it."""
    for text in found.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            continue
        if any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            needed.marker = None
            yield str(needed)


def _name(line: str) -> str:
    try:
        return canonicalize_name(Requirement(line).name)
    except InvalidRequirement:
        return ""


def _read_file(path: Path, depth: int = 0) -> Iterator[str]:
    """The lines of a requirements file and of those that it names. Raises PackageError."""
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PackageError(f"its requirements file '{path.name}' cannot be read: {why}") from error
    for raw in text.replace("\\\n", " ").splitlines():
        line = COMMENT.sub("", raw).strip()
        if other := OTHER_FILE.fullmatch(line):
            if depth >= MAX_DEPTH:
                raise PackageError(f"its requirements file '{path.name}' names others too deeply")
            yield from _read_file(path.parent / other[1], depth + 1)
        elif line:
            yield line if line.startswith("-") else OPTIONS_AFTER.sub("", line)


def _python(given: Any) -> str:
    """The version's first two numbers. YAML reads an unquoted 3.10 as the number 3.1."""
    if given is None:
        return ""
    found = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)*", str(given))
    if isinstance(given, bool) or found is None:
        raise PackageError(f'its cog.yaml\'s `build.python_version` must be like "3.11": {given}')
    minor = "10" if isinstance(given, float) and found[2] == "1" else found[2]
    return f"{found[1]}.{minor}"


def _texts(build: Mapping[str, Any], key: str) -> tuple[str, ...]:
    given = build.get(key) or []
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise PackageError(f"its cog.yaml's `build.{key}` must be a list of texts")
    return tuple(given)


def _commands(build: Mapping[str, Any], key: str) -> Iterator[str]:
    """Each command: a text, or a mapping with `command`; its `mounts` are for Docker only."""
    given = build.get(key) or []
    for one in given if isinstance(given, list) else [given]:
        command = one.get("command") if isinstance(one, dict) else one
        if not isinstance(command, str):
            raise PackageError(f"its cog.yaml's `build.{key}` must be a list of commands")
        yield command
