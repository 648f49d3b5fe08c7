"""A folder of wheels, so that tests install with pip and without a network."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path

# What a model's environment needs to run Cog's server.
COG = (
    *("cog", "coglet", "typing_extensions", "PyYAML", "structlog", "requests"),
    *("charset-normalizer", "idna", "urllib3", "certifi"),
)


def pack(folder: Path, names: Iterable[str] = COG) -> None:
    """Put wheels of installed distributions into the folder."""
    for name in names:
        found = distribution(name)
        tags = re.findall(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.M)
        files = {
            str(path): Path(str(path.locate())).read_bytes()
            for path in found.files or ()
            if ".." not in path.parts and "__pycache__" not in path.parts
        }
        _write(folder, found.name, found.version, tags[0], files)


def make(folder: Path, name: str, version: str, sources: Mapping[str, str]) -> None:
    """Put a wheel of these Python files into the folder."""
    info = f"{name}-{version}.dist-info"
    files = {path: text.encode() for path, text in sources.items()}
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    )
    tag = "py3-none-any"
    wheel = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
    files[f"{info}/WHEEL"] = wheel.encode()
    files[f"{info}/RECORD"] = b""
    _write(folder, name, version, tag, files)


def _write(folder: Path, name: str, version: str, tag: str, files: Mapping[str, bytes]) -> None:
    escaped = re.sub(r"[-_.]+", "_", name)
    record = next(path for path in files if path.endswith(".dist-info/RECORD"))
    rows = "".join(f"{path},,\n" for path in files)
    with zipfile.ZipFile(folder / f"{escaped}-{version}-{tag}.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, rows if path == record else content)
