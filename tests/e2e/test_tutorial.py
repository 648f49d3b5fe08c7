"""Each page of the tutorial, typed from its first line to its last: its files are written, its
commands run, and they print what the page shows."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.waiting import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
# A block of code. The line above it names the file that it is, if it is one.
BLOCK = re.compile(r"^(?:`([\w./-]+)`:\n\n)?```(\w+)\n(.*?)^```$", re.M | re.S)
SERVES = ("callme up",)


def pattern(shown: str) -> re.Pattern[str]:
    """What may be printed where a page shows this: a line with nothing but `…` stands for any
    lines, and `…` within a line for any text."""
    parts = []
    for line in shown.splitlines():
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append("[^\n]*?".join(map(re.escape, line.rstrip().split("…"))) + " *\n")
    return re.compile("".join(parts))


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Each command, and what is shown below it."""
    for piece in re.split(r"^\$ ", console, flags=re.M)[1:]:
        command, _, shown = piece.partition("\n")
        yield command, shown


class Reader:
    """Somebody who has an empty folder and does what a page says."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._servers = ExitStack()
        tools = folder.parent / "tools"
        tools.mkdir()
        for name, argv in (("callme", "-m router.cli"), ("python", "")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {argv} "$@"\n')
            (tools / name).chmod(0o755)
        env = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
        self._env = env | {
            "CALLME_PORT": str(port),
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "PATH": f"{tools}:{env['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def types(self, command: str, shown: str) -> None:
        """Run it; it must print what is shown."""
        if command.startswith(SERVES):
            self._servers.enter_context(self._serving(command, pattern(shown)))
            return
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        printed = (
            done.stdout if done.stdout.endswith("\n") or not done.stdout else done.stdout + "\n"
        )
        assert pattern(shown).fullmatch(printed), f"$ {command}\n{printed}"

    @contextmanager
    def _serving(self, command: str, wanted: re.Pattern[str]) -> Iterator[None]:
        """Leave it running once it has printed what is wanted."""
        screen = self.folder.parent / "screen"
        with screen.open("w") as printed:
            child = subprocess.Popen(
                command.split(), cwd=self.folder, env=self._env, stdout=printed, stderr=printed
            )
        try:
            wait_until(
                lambda: wanted.fullmatch(screen.read_text()) or child.poll() is not None, 200
            )
            assert wanted.fullmatch(screen.read_text()), screen.read_text()
            yield
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)

    def close(self) -> None:
        """Stop what serves."""
        self._servers.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def reader(tmp_path: Path, port: int) -> Iterator[Reader]:
    folder = tmp_path / "models"
    folder.mkdir()
    reader = Reader(folder, port)
    try:
        yield reader
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_as_it_is_typed(page: Path, reader: Reader, port: int) -> None:
    """Every file and every command of the page, in its order."""
    text = page.read_text().replace("7777", str(port))
    ran = 0
    for file, kind, content in BLOCK.findall(text):
        if file:
            (reader.folder / file).write_text(content)
        elif kind == "console":
            for command, shown in commands(content):
                reader.types(command, shown)
                ran += 1
    assert ran > 3


def test_what_is_shown_must_be_printed() -> None:
    """`…` stands for text of one line, or for lines, and for nothing else."""
    shown = pattern("a … c\n…\nend\n")
    assert shown.fullmatch("a b c\nx\ny\nend\n")
    assert shown.fullmatch("a b c\nend\n")
    assert not shown.fullmatch("a b\nc\nend\n")
    assert not shown.fullmatch("a b c\nx\n")


def test_the_pages_are_short_and_lead_on() -> None:
    """At most 800 words, and a link to the next page."""
    for page, following in itertools.pairwise(PAGES):
        assert f"]({following.name})" in page.read_text()
    assert len(PAGES) == 5
    assert all(len(page.read_text().split()) <= 800 for page in PAGES)
