"""Prose that a reader has to read twice is not plain: a short list of words that are not used."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each with what to say instead.
BANNED = {
    "anew": "again",
    "books are kept": "say what is written",
    "dear": "expensive",
    "face": "API",
    "faces": "APIs",
    "for ever": "without end, or indefinitely",
    "mend": "fix",
    "mended": "fixed",
    "of before": "earlier",
    "strangers": "say who",
    "whoever": "the caller, or say who",
}
WORD = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, BANNED))})(?![\w-])", re.IGNORECASE)
# A name, a person's face as data or drawn, and an old key that the changelog has to name.
ALLOWED = ("Hugging Face", "no face in it", "person, face", '"face"', "`mend`")
READ = {".py", ".md", ".ts", ".toml", ".yml", ".yaml", ".sh", ".html", ".js", ".css"}
# This list, the law's own words, and what others wrote.
EXEMPT = {"tests/test_words.py", "LICENSE"}


def without_allowed(line: str) -> str:
    """Take the phrases out in which such a word means something else."""
    for phrase in ALLOWED:
        line = line.replace(phrase, "")
    return line


def files() -> list[str]:
    """What git has, but recordings of what other programs say."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    return [f for f in listed if Path(f).suffix in READ and f not in EXEMPT and "/golden/" not in f]


@pytest.mark.parametrize("path", files())
def test_plain_words(path: str) -> None:
    """None of them stands in it."""
    found = [
        f"{path}:{number}: '{match[1]}': say {BANNED[match[1].lower()]}"
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        for match in WORD.finditer(without_allowed(line))
    ]
    assert not found, "\n".join(found)
