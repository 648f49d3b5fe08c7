"""Runs `pip install` and shows what is downloaded, how much of it, and how far that is.

`python deploy/pip_progress.py NAME ARGUMENTS…` passes the arguments on to the pip of the Python
that runs this. NAME is what a person reads of it. On a terminal one line is drawn again and again;
elsewhere there is a line for each large file. When pip fails, all that it printed is shown.
Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

DOWNLOADING = re.compile(r"\s*Downloading (\S+)(?: \(([\d.]+) ([kMG]?B)\))?")
INSTALLING = re.compile(r"Installing collected packages: (.+)")
UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
LARGE_MB = 10.0
DRAW_EVERY_S = 0.2
LONGEST_NAME = 44


class Progress:
    """What pip has printed so far, and what that means. `folder`: where it puts its downloads."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.libraries = 0  # to install; 0 while that is not known
        self.downloaded_mb = 0.0
        self._folder = folder
        self._file, self._file_mb = "", 0.0
        self._found = 0
        self._before = installed()

    def read(self, line: str) -> str:
        """Take in one line. Return what to say of it where there is no terminal, or ""."""
        self.lines.append(line)
        self._found += line.startswith(("Collecting ", "Processing "))
        if found := DOWNLOADING.match(line):
            self._file = unquote(Path(urlsplit(found[1]).path).name)
            self._file_mb = float(found[2]) * UNITS[found[3]] if found[2] else 0.0
            self.downloaded_mb += self._file_mb
            if self._file_mb >= LARGE_MB:
                return f"downloads {self._file}, {self._file_mb:.0f} MB"
        elif found := INSTALLING.match(line):
            self.libraries = found[1].count(",") + 1
            return f"installs {count(self.libraries)}"
        return ""

    def now(self) -> str:
        """What is being done, in one line."""
        if self.libraries:
            done = min(len(installed() - self._before), self.libraries)
            return f"installs {count(self.libraries)}: {done}"
        if not self._file:
            return f"looks for what is needed, {self._found} found"
        name = self._file[:LONGEST_NAME] + ("…" if len(self._file) > LONGEST_NAME else "")
        there = bytes_of(self._folder.glob(f"*/{self._file}")) / 1e6
        if there < self._file_mb:
            return f"downloads {name}: {there:.0f} of {self._file_mb:.0f} MB"
        return f"has {self.downloaded_mb:.0f} MB, the last of it {name}"


def bytes_of(files: Iterable[Path]) -> int:
    """The size of those that are still there: pip moves and deletes them meanwhile."""
    size = 0
    for file in files:
        with contextlib.suppress(OSError):
            size += file.stat().st_size
    return size


def installed() -> set[str]:
    """The libraries in this Python's environment."""
    return {path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info")}


def count(libraries: int) -> str:
    """How many that is, in words."""
    return f"{libraries} librar{'y' if libraries == 1 else 'ies'}"


def say(text: str) -> None:
    """Print it at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def run(name: str, arguments: list[str]) -> int:
    """Run pip and return its exit status."""
    began, draws = time.monotonic(), sys.stdout.isatty()
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    with tempfile.TemporaryDirectory(prefix="callme-pip-") as folder:
        progress = Progress(Path(folder))
        child = subprocess.Popen(  # noqa: S603 - pip, with make's arguments
            [*command, "--progress-bar", "off", *arguments],
            env={**os.environ, "TMPDIR": folder, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

        def read() -> None:
            assert child.stdout is not None  # noqa: S101 - a pipe, as asked for
            for line in child.stdout:
                said = progress.read(line.rstrip("\n"))
                if said and not draws:
                    say(f"  {name}  {said}\n")

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        try:
            while reading.is_alive():
                reading.join(DRAW_EVERY_S)
                if draws:
                    seconds = time.monotonic() - began
                    say(f"\r\x1b[K  · {name}  {progress.now()} ({seconds:.0f} s)")
        except KeyboardInterrupt:
            child.terminate()  # a terminal's Ctrl-C has reached it too, a signal to make has not
            child.wait()
            say("\nStopped. The same command goes on from here.\n")
            return 130
        status = child.wait()
    if draws:
        say("\r\x1b[K")
    if status:
        say("\n".join(progress.lines) + f"\n  ✗ {name}  pip cannot install it: see above\n")
    else:
        size = f", {progress.downloaded_mb:.0f} MB downloaded" if progress.downloaded_mb else ""
        seconds = time.monotonic() - began
        did = f"{count(progress.libraries)} installed in" if progress.libraries else "all there,"
        say(f"  ✓ {name}  {did} {seconds:.0f} s{size}\n")
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
