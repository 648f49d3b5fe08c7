"""The page with a keyboard alone, without motion, on a phone, with files dropped and pasted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chromium import find_chromium
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, Service, running_service
from tests.package_copies import packages_in

PACKAGES = ROOT / "tests" / "packages"
PHOTO = PACKAGES / "allkinds" / "samples" / "shapes.png"
SPEECH = ROOT / "fluency" / "samples" / "speech.wav"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A box with models that no page knows."""
    find_chromium()
    folder = tmp_path_factory.mktemp("people")
    packages = packages_in(folder / "packages", "allkinds", "echo")
    with running_service(packages, folder / "state", {"ECHO_SETUP_S": "2"}) as running:
        yield running


@pytest.mark.timeout(700)
def test_nothing_moves_for_those_who_asked_for_stillness(service: Service, tmp_path: Path) -> None:
    """A start and a run are animated, and are still where the person prefers reduced motion."""
    moving = visit(service.url, tmp_path / "visit", "motion")["result"]
    assert {"pulse", "slide"} <= set(moving["no-preference"])
    assert moving["reduce"] == []


@pytest.mark.timeout(700)
def test_with_the_keyboard_alone(service: Service, tmp_path: Path) -> None:
    """Tab goes through the page in its order, always to something that is seen and marked; dialogs
    keep the focus, end at Escape and give it back; a model is run and its result read."""
    saw = visit(service.url, tmp_path / "visit", "keyboard", photo=str(PHOTO))
    result = saw["result"]
    lost = [s for s in result["stops"] if not (s["marked"] and s["visible"] and s["ordered"])]
    assert lost == []
    for opener, now, kept_inside in result["back"]:
        assert now.startswith(opener)
        assert kept_inside
    assert result["afterFile"] == "Choose a file"
    assert "choose a file instead" in result["board"]
    assert result["icon"] == f"{service.url}/static/icon.svg"  # three views from the first
    assert result["state"] == "succeeded"
    assert result["spoken"].startswith("Done")
    seen = result["seen"]
    assert seen["photo_bytes"] == PHOTO.stat().st_size
    assert (seen["style"], seen["loud"]) == ("ink", True)
    assert (result["canceled"], result["afterCancel"]) == ("canceled", True)
    assert saw["complaints"] == []


@pytest.mark.timeout(700)
def test_on_a_phone(service: Service, tmp_path: Path) -> None:
    """The camera's own app takes the photo; the ink is under the finger; nothing scrolls away."""
    saw = visit(service.url, tmp_path / "visit", "phone", photo=str(PHOTO))
    result = saw["result"]
    assert result["asks"] == ["environment", "image/*"]
    assert result["onDesk"] == 0
    assert (result["state"], result["bytes"]) == ("succeeded", PHOTO.stat().st_size)
    assert 0 <= result["resultTop"] < 370  # in the upper half
    assert result["ink"] == [True, True, True, False, False]
    assert result["stayed"]
    assert (result["axe"], result["sideways"], saw["complaints"]) == ([], 0, [])


@pytest.mark.timeout(700)
def test_files_are_dropped_and_pasted(service: Service, tmp_path: Path) -> None:
    """On a field, beside every field, and from the clipboard: real files, by the browser itself."""
    for name in ("letter", "second"):
        (tmp_path / f"{name}.txt").write_text(f"the {name}")
    saw = visit(
        *(service.url, tmp_path / "visit", "handed"),
        photo=str(PHOTO),
        speech=str(SPEECH),
        letter=str(tmp_path / "letter.txt"),
        second=str(tmp_path / "second.txt"),
    )
    result = saw["result"]
    assert (result["over"], result["lit"]) == (True, False)
    assert result["where"] == [f"{service.url}/models/allkinds", "untitled and more"]
    assert result["pasted"] == [200, 160]
    assert result["state"] == "succeeded"
    seen = result["seen"]
    assert seen["title"] == result["text"] == "from the clipboard"
    assert (seen["speech_head"], seen["pages"]) == ("RIFF", ["the letter", "the second"])
    assert saw["complaints"] == []


@pytest.mark.timeout(700)
def test_the_drawing_board(service: Service, tmp_path: Path) -> None:
    """Each pen has its colour, the eraser uncovers the ground, undo takes back one stroke at a
    time, and what is sent is what the board shows."""
    result = visit(service.url, tmp_path / "visit", "board")["result"]
    seen = result["seen"]
    black, red, green, blue, yellow, white = (
        *("17,17,17", "214,40,40", "42,157,74"),
        *("29,95,214", "242,183,5", "255,255,255"),
    )
    pens = ("Black", "Red", "Green", "Blue", "Yellow")
    assert [seen[p] for p in pens] == [[black], [red], [green], [blue], [yellow]]
    assert seen["erased"] == [white, white, black, yellow]
    assert seen["undone"] == [black, green, yellow]
    assert seen["twice"] == [blue, white]
    assert seen["dot"] == [red]
    assert seen["wide"] == [red, white]
    assert result["state"] == "succeeded"
    assert seen["sent"] == [black, white, red, white]
    assert (seen["cleared"], result["chosen"]) == ([white, white], 0)
