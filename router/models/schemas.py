"""Each package's OpenAPI schema: read from its `.cog` folder, made again when missing or stale.

coglet validates only against `.cog/openapi_schema.json`. `cog build` writes this file, but it
needs Docker, so without Docker the router writes it. `callme.json` beside it records the sources
that it was made from. A folder that cannot be written to is not an error, only slower.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from router.models.catalog import Package, does_stream
from router.models.process_group import ProcessGroup, inherited_environment
from router.models.process_interface import StartError
from router.models.process_options import runnable
from router.models.source_files import SHOWN_ONLY, source_files
from router.models.tracebacks import last_raised

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("runner_schema.py")
SCHEMA_NAME = "openapi_schema.json"
STAMP_NAME = "callme.json"
# Importing torch and a model library for the first time from a cold disk takes most of this.
DESCRIBE_TIMEOUT_S = 300.0
# Lines kept of what an import prints, with the schema last. A traceback has at most 105 lines.
PRINTED_LINES = 200
LONGEST_SCHEMA = 16 << 20


@dataclass(frozen=True, slots=True)
class Description:
    """A package's inputs, output and concurrency. `schema`: an OpenAPI document."""

    schema: Mapping[str, Any]
    max_concurrency: int

    @property
    def streams(self) -> bool:
        """Whether its output can be read element by element, as Server-Sent Events."""
        return does_stream(self.schema)


async def describe(package: Package) -> Description:
    """Return the description: from disk if it is up to date there, else made now.

    Raises StartError when the runner cannot be imported, and when `runnable` does.
    """
    package = runnable(package)
    return read_description(package) or await _make(package)


def read_description(package: Package) -> Description | None:
    """Return the description on disk, or None when there is none of the present sources."""
    return _read(package, fingerprint(package))


def fingerprint(package: Package) -> str:
    """Return a hash of what the schema depends on: the sources, the cog.yaml, the interpreter."""
    digest = hashlib.sha256()
    digest.update(f"{package.runner}\0{package.python}\0".encode())
    digest.update(SCRIPT.read_bytes())
    for path in source_files(package.folder):
        if path.name in SHOWN_ONLY:
            continue
        digest.update(f"{path.relative_to(package.folder)}\0".encode())
        digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # deleted since it was listed, or not readable, for Python neither
        return str(error.errno).encode()


def _read(package: Package, stamp: str) -> Description | None:
    folder = package.folder / ".cog"
    try:
        remembered = orjson.loads((folder / STAMP_NAME).read_bytes())
        if remembered["fingerprint"] != stamp:
            return None
        schema = orjson.loads((folder / SCHEMA_NAME).read_bytes())
        return Description(schema, int(remembered["max_concurrency"]))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


async def _make(package: Package) -> Description:
    stamp = fingerprint(package)
    printed: deque[bytes] = deque(maxlen=PRINTED_LINES)
    argv = (str(package.python), str(SCRIPT), package.runner)
    env = {**inherited_environment(), **package.env}
    try:
        group = await ProcessGroup.spawn(
            argv, cwd=package.folder, env=env, on_line=printed.append, longest_line=LONGEST_SCHEMA
        )
    except OSError as error:
        raise StartError(why_not_spawned(package, error)) from error
    try:
        async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
            ending = await group.wait()
    except TimeoutError as error:
        raise StartError("its runner takes too long to import") from error
    finally:
        await group.end(0)
    description = _description(printed)
    if description is None:
        raise _unreadable([line.decode(errors="replace").rstrip("\n") for line in printed], ending)
    if description.max_concurrency == 1:  # the runner's value goes before cog.yaml's deprecated key
        description = replace(description, max_concurrency=package.max_concurrency)
    _write(package, stamp, description)
    return description


def _unreadable(printed: Sequence[str], ending: str) -> StartError:
    """Return the error for a runner whose import printed these lines."""
    raised = last_raised(printed)
    if raised is not None:
        reason, location = raised.error, raised.location
    else:
        reason = printed[-1].strip() if printed else ""
        reason, location = reason or f"its import ended with {ending}", ""
    return StartError(f"its runner cannot be read: {reason}", location=location, log=printed)


def why_not_spawned(package: Package, error: OSError) -> str:
    """Return why no process of the package can be started, in words."""
    if not package.folder.is_dir():
        return f"its folder '{package.folder.name}' is gone"
    return f"its interpreter cannot be run: {error.strerror}"


def _description(printed: Sequence[bytes]) -> Description | None:
    """Return what the script printed last, or None when the import failed before that."""
    for line in reversed(printed):
        if line.startswith(b'{"schema":'):
            try:
                answer = orjson.loads(line)
                return Description(answer["schema"], int(answer["max_concurrency"]))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                return None
    return None


def _write(package: Package, stamp: str, description: Description) -> None:
    folder = package.folder / ".cog"
    remembered = {"fingerprint": stamp, "max_concurrency": description.max_concurrency}
    try:
        folder.mkdir(exist_ok=True)
        _replace(folder / SCHEMA_NAME, orjson.dumps(description.schema))
        _replace(folder / STAMP_NAME, orjson.dumps(remembered))
    except OSError as error:
        log.warning(
            "schema not written; the model's own server will not validate",
            extra={"package": package.name, "reason": error.strerror},
        )


def _replace(path: Path, content: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")  # another process may write the same file now
    part.write_bytes(content)
    part.replace(path)
