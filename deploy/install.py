"""Installs libraries into this Python's environment: `python deploy/install.py ARGUMENTS…`.

The arguments are those of `pip install`. uv does the work, in a tenth of pip's time; it is itself
installed with pip. It takes its packages from where pip is configured to take them. Where uv cannot
be had, or cannot do it, pip does. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import ast
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
# The words for what a person chose in pip's configuration: (pip's, uv's).
FLAGS = (
    ("find-links", "--find-links"),
    ("trusted-host", "--allow-insecure-host"),
    ("constraint", "--constraint"),
)
PATHS = ("find-links", "constraint")
LOOK_S = 0.2
INTERRUPTED = 130  # a shell's exit status for Ctrl-C
# uv's last line but for its list of all that it has installed.
ENDS = re.compile(rb"Installed [^\n]*\n")


def pip_settings() -> dict[str, list[str]]:
    """What pip is configured with: its files, and its variables above them."""
    command = [*PIP, "config", "list"]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    found: dict[str, dict[str, list[str]]] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        found.setdefault(section, {})[key] = str(ast.literal_eval(value)).split()
    settings: dict[str, list[str]] = {}
    for section in ("global", "install", ":env:"):
        settings.update(found.get(section, {}))
    return settings


def uv_options(settings: Mapping[str, list[str]]) -> list[str]:
    """The same for uv. A folder that is not there is left out: pip passes over it, uv ends."""
    options = _indexes(settings)
    for key, flag in FLAGS:
        values = settings.get(key, [])
        if key in PATHS:
            values = [value for value in values if _there(value)]
        options += [part for value in values for part in (flag, value)]
    if settings.get("no-index", ["false"])[0].lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    return options


def _indexes(settings: Mapping[str, list[str]]) -> list[str]:
    """pip takes the newest release in all indexes. So does uv with this strategy. But where several
    have that release, it takes the first one's file, so the extra ones come last."""
    extra = [value for value in settings.get("extra-index-url", ()) if _there(value)]
    if not extra:
        return [
            part for value in settings.get("index-url", ()) for part in ("--default-index", value)
        ]
    from pip._internal.models.index import PyPI  # noqa: PLC0415 - pip has no other word for it

    *first, last = [*settings.get("index-url", [PyPI.simple_url]), *extra]
    options = [part for value in first for part in ("--index", value)]
    return [*options, "--default-index", last, "--index-strategy", "unsafe-best-match"]


def uv_environment(settings: Mapping[str, list[str]]) -> dict[str, str]:
    """The variables that uv runs with: certificates, a proxy and the longest wait are pip's."""
    variables = dict(os.environ)
    for key, name in (
        ("cert", "SSL_CERT_FILE"),
        ("proxy", "ALL_PROXY"),
        ("timeout", "UV_HTTP_TIMEOUT"),
    ):
        if key in settings:
            variables.setdefault(name, settings[key][0])
    return variables


def _there(value: str) -> bool:
    """Whether it is no local path, or one that exists."""
    parts = urlsplit(value)
    return parts.scheme not in ("", "file") or Path(unquote(parts.path)).exists()


def install(arguments: list[str]) -> int:
    """Install and return the exit status."""
    uv = Path(sys.executable).with_name("uv")
    bring = ["--quiet", "--no-compile", "--constraint", str(CONSTRAINTS), "uv"]
    if not uv.exists() and _pip(bring):
        return _pip(arguments, "uv cannot be had: pip installs, which takes some minutes")
    settings = pip_settings()
    command = [str(uv), "pip", "install", "--python", sys.executable]
    status = show([*command, *uv_options(settings), *arguments], uv_environment(settings))
    if status in (0, INTERRUPTED):
        return status
    return _pip(arguments, "uv could not do it: pip tries, which takes some minutes")


def _pip(arguments: list[str], why: str = "") -> int:
    """Say why, let pip install and return its exit status."""
    if why:
        sys.stdout.write(f"{why}\n")
        sys.stdout.flush()
    return subprocess.run([*PIP, "install", *arguments], check=False).returncode  # noqa: S603


def show(command: list[str], variables: Mapping[str, str]) -> int:
    """Run the command and show what it prints, up to its list of all that it has installed. On a
    terminal it gets one of its own, so that it draws its bars. Returns its exit status."""
    if sys.stdout.isatty():
        pid, source = pty.fork()
        if not pid:
            os.execve(command[0], command, dict(variables))  # noqa: S606
        termios.tcsetwinsize(source, termios.tcgetwinsize(sys.stdout.fileno()))
    else:
        source, end = os.pipe()
        pid = subprocess.Popen(command, env=variables, stdout=end, stderr=end).pid  # noqa: S603
        os.close(end)
    try:
        _pass_on(source)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGINT)  # on a terminal of its own it has not seen the Ctrl-C
        os.waitpid(pid, 0)
        return INTERRUPTED
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _pass_on(source: int) -> None:
    """Write what comes to the standard output, until the line that ends what is worth reading."""
    line, ended = b"", False
    while piece := _read(source):
        if ended:
            continue
        line += piece
        if found := ENDS.search(line):
            piece, ended = piece[: len(piece) - (len(line) - found.end())], True
        line = line[line.rfind(b"\n") + 1 :]
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _read(source: int) -> bytes:
    """The next bytes; b"" at the end, which a terminal says with an error."""
    # A Ctrl-C just before a read would be seen after it, and a download that stalls prints nothing.
    while not select.select([source], [], [], LOOK_S)[0]:
        pass
    try:
        return os.read(source, 1 << 16)
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:]))
