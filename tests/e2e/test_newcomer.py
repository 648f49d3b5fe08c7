"""The newcomer's whole story, on a pseudo-terminal; and what that terminal shows."""

from __future__ import annotations

import re
from pathlib import Path

from router.logs import PACKAGE_UNREADABLE, START_FAILED
from tests.e2e.newcomer import Newcomer, play
from tests.e2e.terminal import screen_of


def test_a_newcomer(tmp_path: Path) -> None:
    """Every message is what somebody needs at that moment, and nothing else is on the screen."""
    you = Newcomer(tmp_path)
    play(you)
    assert 'Traceback (most recent call last):\n  File "/' not in you.session
    # `up` prints itself what fails after an edit. It logs what a command in the other terminal
    # makes fail: predictions, and a start, unless the command came before the next try was due.
    logged = re.findall(r"\[(?:error|warning|critical) *\] (.+?)  ", you.session)
    assert logged.count(START_FAILED) <= 1
    assert {*logged} - {START_FAILED} == {"prediction failed"}
    assert PACKAGE_UNREADABLE not in you.session
    print(you.session)


def test_what_a_terminal_shows() -> None:
    """Progress bars that are drawn over, and colours."""
    assert screen_of("a\r\nbc\rd\x1b[K\r\n") == "a\nd\n"
    assert screen_of("one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2Kx\r\n\x1b[1;31mred\x1b[0m") == "x\nred"
    assert screen_of("abc\b\bX\x1b[?25l\x1b[2DY") == "YXc"
