"""A Chromium for tests: the one on PATH, or else npm's, which needs nothing of the system.

`@sparticuz/chromium` is a headless Chromium for x86-64 Linux with the libraries and the fonts that
a bare machine lacks, each packed with brotli. They are unpacked once, beside the package.
"""

from __future__ import annotations

import fcntl
import functools
import html
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.edge.npm_tools import npm_folder

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGE = ("@sparticuz/chromium", "147.0.0")
UNPACK_S = 240
VERSION_S = 60
WRAPPER = "run-chromium"
# Node has brotli, Python's library has not.
UNPACK = """
const { brotliDecompressSync } = require("node:zlib"), fs = require("node:fs");
const [from, to] = process.argv.slice(1);
for (const name of fs.readdirSync(from).filter((name) => name.endsWith(".br"))) {
  const unpacked = brotliDecompressSync(fs.readFileSync(`${from}/${name}`));
  fs.writeFileSync(`${to}/${name.slice(0, -3)}`, unpacked);
}
"""
# No zygote: it is forked before the libraries are found. Fonts: this folder's and no others.
SCRIPT = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/lib" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/chromium" --no-zygote "$@"
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{here}/fonts</dir><cachedir>{here}/cache</cachedir></fontconfig>
"""


@functools.cache
def find_chromium() -> str:
    """The browser's program; skips the test, naming what is missing, where there is none."""
    # Ubuntu's is there without running, where there are no snaps.
    for found in filter(None, map(shutil.which, NAMES)):
        if why_not(found) is None:
            return found
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs chromium on PATH, or node and npm for npm's")
    package = npm_folder(PACKAGE)
    packed = package / "node_modules" / PACKAGE[0] / "bin"
    try:
        program = unpacked(packed, package / "unpacked", node)
        why = why_not(str(program))
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        why = f"{type(error).__name__} while it was unpacked"
    if why:
        pytest.skip(f"needs chromium on PATH: npm's {'@'.join(PACKAGE)} does not run: {why}")
    return str(program)


def why_not(program: str) -> str | None:
    """Why this Chromium does not even tell its version; None if it does."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_S,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return None if done.returncode == 0 else done.stderr.strip()[-200:] or str(done.returncode)


def unpacked(packed: Path, folder: Path, node: str) -> Path:
    """The program in `folder`, unpacked from `packed` by the first who asks: others, of other
    processes too, wait for it, and nobody sees half of it."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as making:
                _unpack(packed, Path(making) / "new", folder, node)
                (Path(making) / "new").rename(folder)
    return folder / WRAPPER


def _unpack(packed: Path, into: Path, final: Path, node: str) -> None:
    into.mkdir()
    argv = [node, "-e", UNPACK, str(packed), str(into)]
    subprocess.run(argv, check=True, capture_output=True, timeout=UNPACK_S)
    # Libraries for graphics belong beside the program, fonts into a folder that names them.
    for name, below in (("al2023", "."), ("swiftshader", "."), ("fonts", "fonts")):
        archive = into / f"{name}.tar"
        with tarfile.open(archive) as tar:
            tar.extractall(into / below, filter="data")
        archive.unlink()
    (into / "fonts.conf").write_text(FONTS.format(here=html.escape(str(final.resolve()))))
    (into / WRAPPER).write_text(SCRIPT)
    for program in (into / "chromium", into / WRAPPER):
        program.chmod(0o755)
