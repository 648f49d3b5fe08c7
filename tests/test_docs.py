"""The documents say what the code does, where that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

from router import errors
from router.cli import app, curl_line
from router.models.catalog import discover
from router.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def documents() -> list[Path]:
    """Every page for a reader: the project's and, beside each README, a package's own."""
    own = [page for cog in ROOT.glob("*/cog.yaml") for page in cog.parent.glob("docs/*.md")]
    readmes = ROOT.glob("[!.]*/README.md")  # pytest leaves one in its cache
    return [*ROOT.glob("*.md"), *readmes, *own, *ROOT.glob("docs/**/*.md")]


def test_every_error_is_in_the_table() -> None:
    """Status and code of each class, and no row for what does not exist."""
    text = (ROOT / "docs" / "http" / "errors.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.M)
    classes = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.RouterError)
    ]
    assert sorted(rows) == sorted((str(c.status), c.code) for c in classes)


def test_every_setting_is_in_the_table() -> None:
    """Each field of Settings by its variable's name, and none that does not exist."""
    text = (ROOT / "docs" / "operations" / "settings.md").read_text()
    named = set(re.findall(r"`CALLME_([A-Z_]+)`", text))
    assert {n.lower() for n in named} == set(Settings.model_fields)


def test_the_readmes_curl_lines_are_the_printed_ones() -> None:
    """What `callme up` prints stands in the README; tests/e2e runs the printed lines."""
    readme = (ROOT / "README.md").read_text()
    for package in discover(ROOT, {}).values():
        line = curl_line(package, "http://127.0.0.1:7777", ROOT)
        assert line is not None
        assert line in readme


def test_links_lead_somewhere() -> None:
    """Every relative link of every document is a file."""
    for path in documents():
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


# More than a page: a list that grows.
LONG = {"CHANGELOG.md"}
MAX_WORDS = 800


def words(text: str) -> int:
    """Count what is read: what stands between blanks and has a letter or a digit.

    Not counted: blocks of code, the line of dashes and the bars of a table, the target of a link.
    """
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text).replace("|", " ")
    return sum(1 for word in text.split() if re.search(r"\w", word))


def test_no_page_is_long() -> None:
    """A page is read in a few minutes; what is longer is several pages."""
    counts = {str(path.relative_to(ROOT)): words(path.read_text()) for path in documents()}
    assert {page: n for page, n in counts.items() if n > MAX_WORDS and page not in LONG} == {}
    assert counts.keys() >= LONG


def test_words_are_counted_as_they_are_read() -> None:
    """Code, bars and the targets of links are no words."""
    text = "One [two three](a b.md), four.\n```\nno no\n```\n| `five` | – |\n| --- | --- |"
    assert words(text) == 5


def test_no_table_is_cut() -> None:
    """A table begins with a header and its line of dashes: a blank line makes a row plain text."""
    for path in documents():
        lines = ["", *path.read_text().splitlines(), ""]
        for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
            if line.startswith("| ") and not before.startswith("|"):
                assert re.fullmatch(r"\|( *:?-+:? *\|)+", after), f"{path.name}: {line}"


def test_every_document_is_in_the_site() -> None:
    """`mkdocs.yml` lists each document once, and no file that does not exist."""
    listed = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in documents())


def test_make_targets_in_the_readme_exist() -> None:
    """`make x` in a document is a target."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        named = set(re.findall(r"`make ([a-z0-9-]+)|^make ([a-z0-9-]+)", path.read_text(), re.M))
        assert {a or b for a, b in named} <= targets, path.name


def commands(command: object, path: str) -> Iterator[str]:
    """Every command that does something, as it is typed. (typer brings a click of its own.)"""
    below: dict[str, object] = getattr(command, "commands", {})
    for name, one in below.items():
        yield from commands(one, f"{path} {name}")
    if not below:
        yield path


def test_every_command_is_in_the_table() -> None:
    """Each with its row in docs/cli/README.md, and no row for what does not exist."""
    text = (ROOT / "docs" / "cli" / "README.md").read_text()
    rows = "\n".join(re.findall(r"^\| (`callme .*?) \|", text, re.M))
    named = {" ".join(w for w in n.split() if w.islower()) for n in re.findall(r"`(.*?)`", rows)}
    assert named == set(commands(typer.main.get_command(app), "callme"))


def test_each_decision_has_its_own_number() -> None:
    """No number twice, none left out, and the list names each with its page."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    listed: list[int] = []
    for name, numbers in re.findall(r"\]\(([\w-]+\.md)\) \| ([\d, ]+) \|", index):
        of_page = re.findall(r"^## (\d+)\. ", (folder / name).read_text(), re.MULTILINE)
        assert sorted(of_page, key=int) == numbers.split(", "), name
        listed += map(int, of_page)
    assert sorted(listed) == list(range(1, len(listed) + 1))
    assert f"The last number is {len(listed)}." in index
