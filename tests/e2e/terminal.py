"""A terminal for tests: runs commands on a pseudo-terminal and says what its screen shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.waiting import LIMIT_S, wait_until

COLUMNS, ROWS = 100, 50
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background so, and all that is started from here would never
    # see a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[()].|\x1b[^\[]|[\r\n\b]|[^\x1b\r\n\b]+")


def screen_of(written: str) -> str:
    """Return what a person sees, with all that has scrolled away, after a program has written this.

    Knows what rich and pip use: colours, the cursor up and to the side, erasing of a line. Lines
    are not wrapped.
    """
    lines: list[list[str]] = [[]]
    row = column = 0
    for found in TOKEN.finditer(written):
        text, (numbers, code) = found[0], found.groups()
        count = int(numbers) if numbers and numbers.isdigit() else 0
        if text == "\n":
            row += 1
        elif text == "\r":
            column = 0
        elif text == "\b":
            column = max(0, column - 1)
        elif code == "A":
            row = max(0, row - (count or 1))
        elif code == "B":
            row += count or 1
        elif code == "C":
            column += count or 1
        elif code == "D":
            column = max(0, column - (count or 1))
        elif code == "K":
            del lines[row][0 if count == 2 else column :]
        elif code == "J":
            del lines[row + 1 :]
            del lines[row][column:]
        elif code is None and not text.startswith("\x1b"):
            line = lines[row]
            line.extend(" " * (column - len(line)))
            line[column : column + len(text)] = text
            column += len(text)
        while len(lines) <= row:
            lines.append([])
    return "\n".join("".join(line).rstrip() for line in lines)


class Program:
    """A command that runs on a pseudo-terminal of COLUMNS columns."""

    def __init__(self, command: str, folder: Path, env: Mapping[str, str]) -> None:
        self._written = ""
        self._screen = "", ""  # what was written when it was last looked at, and what that shows
        self._read_to = 0
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.child = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if command.startswith("callme up") else command],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        pending = b""
        while True:
            select.select([self._master], [], [])
            try:
                pending += os.read(self._master, 1 << 16)
            except OSError:  # its last program has closed it
                return
            try:
                self._written += pending.decode()
            except UnicodeDecodeError:  # within a character
                continue
            pending = b""

    def screen(self) -> str:
        """What it shows, from its first line on."""
        written = self._written
        if len(written) != len(self._screen[0]):
            self._screen = written, screen_of(written)
        return self._screen[1]

    def sees(self, text: str) -> str:
        """Wait until it shows the text after what was seen before. Return that, to its line end."""

        def found() -> bool:
            return text in self.screen()[self._read_to :] or self.child.poll() is not None

        wait_until(found, 250)
        shown = self.screen()
        assert text in shown[self._read_to :], shown
        end = shown.find("\n", shown.index(text, self._read_to) + len(text))
        end = len(shown) if end < 0 else end
        new, self._read_to = shown[self._read_to : end], end
        return new.strip("\n")

    def ends(self, number: int | None = None) -> str:
        """Wait for its end, after a signal if one is given. Return what it has shown since."""
        if number is not None:
            self.child.send_signal(number)
        self.child.wait(LIMIT_S)
        self._reading.join(LIMIT_S)
        return self.screen()[self._read_to :].strip("\n")

    def close(self) -> None:
        """End it if it runs."""
        if self.child.poll() is None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.ends(signal.SIGINT)
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self._master)
