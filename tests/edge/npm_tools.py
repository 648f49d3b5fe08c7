"""Programs from npm, installed once into var/npm; a test that needs one is skipped without it."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("CALLME_NPM_CACHE", ROOT / "var" / "npm"))
INSTALL_S = 240

# The hosted edge runtime of 2026-04 is compatible with this Deno.
DENO_HOSTED = ("deno", "2.1.4")
SUPABASE_CLI = ("supabase", "3.1.0")


def npm_binary(package: tuple[str, str], name: str) -> Path:
    """The native program `name` that `package` (name, version) brings for this platform.

    Skips the test, naming what is missing, where npm or the package cannot be had.
    """
    found = _native(npm_folder(package), name)
    if found is None:
        pytest.skip(f"npm's {package[0]}@{package[1]} has no program '{name}' for this platform")
    return found


def npm_folder(package: tuple[str, str]) -> Path:
    """A folder whose node_modules holds `package` (name, version); installed on first use.

    Skips the test, naming what is missing, where npm or the package cannot be had.
    """
    wanted = "@".join(package)
    folder = CACHE / wanted.replace("/", "+")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:  # another run of the tests may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / package[0] / "package.json").exists():
            _install(wanted, folder)
    return folder


def _install(wanted: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"needs npm on PATH, for {wanted}")
    # A package.json of its own keeps npm from climbing to one further up; no install scripts run.
    (folder / "package.json").write_text('{"private": true}\n')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", wanted]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"needs {wanted} from npm: not there after {INSTALL_S} s")
    if done.returncode != 0:
        pytest.skip(f"needs {wanted} from npm: {done.stderr.strip()[-300:]}")


def _native(folder: Path, name: str) -> Path | None:
    """Finds an executable that is not a script: the packages also ship JavaScript launchers."""
    for path in sorted(folder.glob(f"node_modules/@*/*/**/{name}")):
        if path.is_file() and path.open("rb").read(4) == b"\x7fELF":
            return path
    return None
