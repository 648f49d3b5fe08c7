"""A newcomer at two terminals: makes a model, breaks it in six ways, streams, ships a new version.

`python -m tests.e2e.newcomer` prints both terminals. Each message is asserted, word for word.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import wheels
from tests.e2e.terminal import Program
from tests.waiting import free_port

ROOT = Path(__file__).resolve().parents[2]
TEXT = "'text=The cat and the hat, the cat.'"
SSE = "-H 'Accept: text/event-stream' -H 'Content-Type: application/json'"


class Newcomer:
    """Types commands in an empty folder. `session`: what the terminals have shown."""

    def __init__(self, folder: Path, *, aloud: bool = False) -> None:
        self.folder, self.aloud = folder / "models", aloud
        self.session = ""
        self.port = free_port()
        self._up: Program | None = None
        self.folder.mkdir()
        tools, found = folder / "tools", folder / "wheels"
        for made in (tools, found):
            made.mkdir()
        for name, argv in (("callme", "-m router.cli"), ("python", "")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {argv} "$@"\n')
            (tools / name).chmod(0o755)
        wheels.pack(found)
        wheels.make(found, "shouting", "1.2", {"shouting.py": "def loud(text):\n    return text\n"})
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CALLME_", "PIP_"))}
        self.env = {
            **{k: v for k, v in env.items() if k not in ("COLUMNS", "NO_COLOR", "CI")},
            **{"CALLME_PORT": str(self.port), "PATH": f"{tools}:{env['PATH']}"},
            **{"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
            # Without a network: an index with one library in it.
            **{"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(found)},
        }

    def says(self, heading: str) -> None:
        """Write a heading between two acts."""
        self._show(f"\n──── {heading} {'─' * (74 - len(heading))}\n")

    def types(self, command: str, code: int = 0) -> str:
        """Return what the first terminal shows of a command that ends with this code."""
        typed = command.replace("PORT", str(self.port))
        program = Program(typed, self.folder, self.env)
        try:
            shown = program.ends()
            assert program.child.returncode == code, f"$ {typed}\n{shown}"
        finally:
            program.close()
        self._show(f"$ {typed}\n{shown}\n" if shown else f"$ {typed}\n")
        return shown

    def edits(self, file: str, old: str, new: str) -> None:
        """Change a file with sed."""
        assert old in (self.folder / file).read_text(), (file, old)
        old = re.sub(r"[][.*/\\^$]", r"\\\g<0>", old)
        typed = f"s/{old}/{new}/".replace("'", "'\\''")
        self.types(f"sed -i '{typed}' {file}")

    def sees(self, text: str) -> str:
        """Wait for the text in the second terminal, where `callme up` runs."""
        assert self._up is not None
        shown = self._up.sees(text)
        self._show("".join(f"  ║ {line}".rstrip() + "\n" for line in shown.splitlines()))
        return shown

    @contextmanager
    def serving(self) -> Iterator[str]:
        """`callme up --reload` in the second terminal. Gives what it has shown when it serves."""
        self._show("  ║ $ callme up --reload\n")
        self._up = Program("callme up --reload", self.folder, self.env)
        try:
            yield self.sees("make a key: callme keys create web")
            ended = self._up.ends(signal.SIGINT)
            assert ended.endswith("Stopped. Nothing is left running."), ended
            self._show(f"  ║ ^C\n  ║ {ended.splitlines()[-1]}\n")
        finally:
            self._up.close()
            self._up = None

    def _show(self, text: str) -> None:
        text = text.replace(str(self.folder.parent), "/home/you").replace(str(self.port), "7777")
        self.session += text
        if self.aloud:
            sys.stdout.write(text)
            sys.stdout.flush()


def play(you: Newcomer) -> None:
    """The whole story."""
    makes(you)
    with you.serving() as shown:
        assert "✓ my-text  ready in" in shown
        breaks_syntax(you)
        breaks_import(you)
        breaks_set_up(you)
        breaks_run(you)
        breaks_requirements(you)
        breaks_inputs(you)
        you.says("a second model")
        you.types("callme new my-stream -t stream")
        said = you.types("callme predict my-stream -i 'text=one two'", code=1)
        assert "Cannot find model 'my-stream'; there are: my-text" in said
        assert "The router reads the folder when it starts: stop it, and run it again." in said
    streams(you)
    ships(you)


def makes(you: Newcomer) -> None:
    """A folder that runs as it is."""
    you.says("a model of your own")
    made = you.types("callme new my-text")
    assert "Made my-text/: cog.yaml, example.json, requirements.txt, run.py, test_run.py" in made
    assert f"callme predict ./my-text -i {TEXT}" in made
    assert you.types("python my-text/test_run.py") == "ok"
    shown = you.types(f"callme predict ./my-text -i {TEXT}")
    assert shown.startswith("Starting my-text for this prediction.")
    assert '"words": 7' in shown
    assert "1 to 20" in you.types("callme inputs ./my-text")


def still_works(you: Newcomer) -> None:
    """The model answers, whatever is in its folder now."""
    said = you.types("curl -sS http://127.0.0.1:PORT/my-text -F 'text=a cat'")
    assert said == '{"most_used":["cat"],"words":2}'


def breaks_syntax(you: Newcomer) -> None:
    """A mistake that Python finds when it reads the file stops nothing."""
    you.says("1. a syntax error")
    you.edits("my-text/run.py", "def setup(self)", "def setup(self")
    seen = you.sees("the old code goes on serving")
    assert "my-text: run.py changed" in seen
    assert "✗ Cannot restart 'my-text': SyntaxError: " in seen
    assert "(run.py:18:" in seen
    still_works(you)
    you.edits("my-text/run.py", "def setup(self", "def setup(self)")
    you.sees("✓ my-text  ready in")


def breaks_import(you: Newcomer) -> None:
    """The same for an import."""
    you.says("2. an import that fails")
    you.edits("my-text/run.py", "import Counter", "import Countre")
    seen = you.sees("the old code goes on serving")
    assert "ImportError: cannot import name 'Countre' from 'collections'" in seen
    assert "(run.py:3)" in seen
    assert "requirements.txt" not in seen  # it is Python's own library
    assert "    from collections import Countre" in you.types("callme logs my-text -n 6")
    you.edits("my-text/run.py", "import Countre", "import Counter")
    you.sees("✓ my-text  ready in")


def breaks_set_up(you: Newcomer) -> None:
    """Known only when the new process runs: the line is named, in both terminals."""
    you.says("3. a set-up that fails")
    you.edits("my-text/run.py", '"of", "to"}', '"of", "to"}["all"]')
    seen = you.sees("more: callme logs my-text")
    reason = "TypeError: 'set' object is not subscriptable (run.py:20 in setup)"
    sentence = f"its set-up failed: {reason}"
    assert f"✗ my-text  {sentence}" in seen
    said = you.types("callme predict my-text -i 'text=a cat'", code=1)
    assert '  File "run.py", line 20, in setup' in said
    assert said.endswith(f"Cannot start 'my-text': {sentence}")
    assert "Try again" not in said
    assert f"my-text: {sentence}" in you.types("callme status").replace("\n", " ")
    you.edits("my-text/run.py", '"of", "to"}["all"]', '"of", "to"}')
    you.sees("✓ my-text  ready in")
    status = you.types("callme status").replace("\n", " ")
    assert f"my-text, before its last start: {sentence}" in status


def breaks_run(you: Newcomer) -> None:
    """The caller on the web gets a sentence without a line; the owner gets the traceback."""
    you.says("4. a prediction that fails")
    you.edits("my-text/run.py", "word.strip(", "word.stripp(")
    you.sees("✓ my-text  ready in")
    said = you.types("callme predict my-text -i 'text=a cat'", code=1)
    reason = "AttributeError: 'str' object has no attribute 'stripp'"
    assert 'words = [word.stripp(".,;:!?").lower() for word in text.split()]' in said
    assert re.search(rf"The model failed: {reason} \(run.py:27 in .*\)$", said), said
    web = you.types("curl -sS http://127.0.0.1:PORT/my-text -F 'text=a cat'")
    assert web == (
        f'{{"error":{{"code":"prediction_failed","message":"The model failed: {reason}"}}}}'
    )
    you.edits("my-text/run.py", "word.stripp(", "word.strip(")
    you.sees("✓ my-text  ready in")


def breaks_requirements(you: Newcomer) -> None:
    """What is imported must be installed: the message says how, and `up` does it."""
    you.says("5. a library that is not installed")
    you.edits("my-text/run.py", "from cog import", "import shouting\\nfrom cog import")
    seen = you.sees("the old code goes on serving")
    assert "ModuleNotFoundError: No module named 'shouting' (run.py:5)" in seen
    hint = "If requirements.txt does not name it, add it there. Then: callme install my-text"
    assert hint in seen
    you.types("echo 'shouting==2' >> my-text/requirements.txt")
    seen = you.sees("the old code goes on serving")
    assert "my-text: requirements.txt changed" in seen
    assert "· my-text  installs shouting==2" in seen
    why = "Could not find a version that satisfies the requirement shouting==2; the newest are 1.2"
    assert f"✗ my-text  not installed: {why} (requirements.txt:2)" in seen
    still_works(you)
    you.edits("my-text/requirements.txt", "shouting==2", "shouting==1.2")
    seen = you.sees("✓ my-text  ready in")
    assert "✓ my-text  installed into .venv, with Python 3." in seen
    still_works(you)


def breaks_inputs(you: Newcomer) -> None:
    """Each says which input, what it may be, and what was given."""
    you.says("6. inputs that cannot be")
    predict = "callme predict my-text"
    for given, code, said in (
        ("-i text=cat -i top=500", 1, "Cannot use 'top': must be at most 20, got 500"),
        ("-i text=cat -i topp=5", 1, "Cannot use 'topp': there is no such input; there are: text,"),
        ("", 1, "Cannot use 'text': is required"),
        ("-i top=my-text/run.py", 1, "Did you mean the file? -i top=@my-text/run.py"),
        ("-i text=@my-text/rum.py", 2, "there is no file 'my-text/rum.py'"),
        ("text=cat", 2, "did you forget -i? callme predict my-text -i text=cat"),
        ("-i 'text= '", 1, "Cannot count 'text': it has no words"),
    ):
        assert said in you.types(f"{predict} {given}".strip(), code), given
    meant = you.types("callme predict my-txt -i text=cat", 1)
    assert "Cannot find model 'my-txt'; there are: my-text" in meant


def streams(you: Newcomer) -> None:
    """Word by word, over HTTP."""
    you.says("a stream")
    with you.serving() as shown:
        assert "✓ my-stream  ready in" in shown
        url = "http://127.0.0.1:PORT/models/my-stream/predictions"
        events = you.types(f'curl -sSN {url} {SSE} -d \'{{"input":{{"text":"one two"}}}}\'')
        assert [line for line in events.splitlines() if line.startswith("event: ")] == [
            *("event: start", "event: output", "event: output", "event: completed")
        ]
        assert '"chunk":"two "' in events


def ships(you: Newcomer) -> None:
    """A new version for a tenth of the requests, then for all, then for none."""
    you.says("a new version")
    you.types("cp -r my-text my-text@next")
    you.edits("my-text@next/run.py", "words=len(words)", "words=len(words) + 1000")
    you.types(
        "printf '[models.my-text]\\ncanary = \"my-text@next\"\\nshare = 0.1\\n' > callme.toml"
    )
    with you.serving() as shown:
        assert "✓ my-text@next  ready in" in shown
        asks = (
            "for i in $(seq 20); do curl -sS http://127.0.0.1:PORT/my-text -F text=cat; echo; done"
        )
        counted = you.types(f"{asks} | grep -o 'words.*' | sort | uniq -c")
        shares = sorted(line.split() for line in counted.splitlines())
        assert shares == [["18", 'words":1}'], ["2", 'words":1001}']]
        said = you.types("callme status").replace("\n", " ")
        assert "10% of my-text to my-text@next; my-text: 0 of 18 failed, run" in said
        assert "my-text@next: 0 of 2 failed, run" in said
        said = you.types("callme promote my-text")
        assert said.startswith("my-text@next serves all requests for my-text from now on; back: ")
        assert '"words": 1001' in you.types("callme predict my-text -i text=cat")
        said = you.types("callme rollback my-text")
        assert said == "my-text serves all requests for my-text from now on"
        assert '"words": 1\n' in you.types("callme predict my-text -i text=cat")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        play(Newcomer(Path(temporary), aloud=True))
