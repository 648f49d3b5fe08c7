"""The page under what no designer likes to show: any output, any refusal, a box that is broken."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chromium import find_chromium
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, Service, running_service
from tests.package_copies import packages_in

PACKAGES = ROOT / "tests" / "packages"
MOST_NODES = 12_000
MOST_TEXT = 600_000


def box_of(folder: Path, *names: str) -> Path:
    """A folder with these packages."""
    find_chromium()
    return packages_in(folder, *names)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A box whose queues are short."""
    folder = tmp_path_factory.mktemp("hostile")
    packages = box_of(folder / "packages", "allkinds", "echo", "shapes")
    with running_service(packages, folder / "state", {"CALLME_QUEUE_LIMIT": "1"}) as running:
        yield running


def shapes() -> list[str]:
    """The names of the outputs that the package can answer with."""
    tree = ast.parse((PACKAGES / "shapes" / "run.py").read_text())
    (table,) = (n.value for n in tree.body if isinstance(n, ast.AnnAssign))
    assert isinstance(table, ast.Dict)
    return [ast.literal_eval(k) for k in table.keys if k is not None]


def faults(seen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What axe-core found, light or dark, and what scrolls sideways, by the state's name."""
    found = {name: (s["axe"], s["wide"]) for name, s in seen.items()}
    return {name: fault for name, fault in found.items() if fault != ([], [0, 0])}


@pytest.mark.timeout(900)
def test_an_output_of_every_shape(service: Service, tmp_path: Path) -> None:
    """Each is shown, at 360 px and on a wall, without a violation, a script of its own, a request
    to another host, or more text than a browser bears."""
    names = shapes()
    saw = visit(service.url, tmp_path / "visit", "shapes", limit_s=840, shapes=names)
    seen = saw["result"]
    assert list(seen) == names
    assert faults(seen) == {}
    for name, shown in seen.items():
        assert (shown["state"], shown["injected"]) == ("succeeded", 0), name
        assert shown["nodes"] < MOST_NODES, name
        assert shown["length"] < MOST_TEXT, name
    assert "nothing to show" in seen["nothing"]["text"]
    for empty in ("no text", "no list", "no object"):
        assert "nothing to show" in seen[empty]["text"]
    assert "<script>" in seen["markup"]["text"]
    assert seen["right to left"]["right"] >= 3
    assert "500" in seen["500 boxes"]["text"]
    assert seen["500 boxes"]["boxes"] == 300
    assert seen["odd boxes"]["boxes"] == 4
    assert seen["5000 times"]["marks"] == 1500
    assert not [u for u in seen["files of elsewhere"]["links"] if "example.com" in u]
    assert saw["complaints"] == []


@pytest.mark.timeout(700)
def test_without_a_microphone(tmp_path: Path) -> None:
    """A refusal is explained and can be tried again; over plain http everything else works."""
    key = "page-key-0123456789abcdef0123456789abcdef"
    packages = box_of(tmp_path / "packages", "allkinds")
    with running_service(packages, tmp_path / "state", {"CALLME_KEYS": f"page:{key}"}) as service:
        saw = visit(service.url, tmp_path / "visit", "microphone", isRefused=True, key=key)
    result = saw["result"]
    assert result["again"] == ["Start", False]
    assert faults({"refused": result["refused"]}) == {}
    assert (result["state"], result["boxes"]) == ("succeeded", 2)


@pytest.mark.timeout(700)
def test_what_is_refused_or_breaks_says_why(service: Service, tmp_path: Path) -> None:
    """A full queue says when to try again, a run that failed says how and what was printed."""
    seen = visit(service.url, tmp_path / "visit", "broken")["result"]
    assert "boom" in seen["raise"]["said"]
    assert "ended while it worked" in seen["crash"]["said"]
    assert "not to my taste" in seen["invalid"]["said"]
    assert "25 MiB" in seen["large"]["said"]
    assert "Try again in" in seen["full"]["said"]
    assert seen.pop("waiting") == 1
    assert "number 1" in seen["queue"]["said"]
    assert list(seen) == ["raise", "crash", "invalid", "large", "full", "queue"]
    assert faults(seen) == {}


@pytest.mark.timeout(700)
def test_a_model_that_does_not_start(tmp_path: Path) -> None:
    """Its card and its page say why and when it is tried again."""
    packages = box_of(tmp_path / "packages", "echo")
    env = {"ECHO_SETUP_ERROR": "the weights are not here"}
    with running_service(packages, tmp_path / "state", env) as service:
        seen = visit(service.url, tmp_path / "visit", "failing")["result"]
    assert "the weights are not here" in seen["run"]["said"]
    assert "the weights are not here" in seen["card"]["said"]
    assert faults(seen) == {}


@pytest.mark.timeout(700)
def test_a_box_without_a_model(tmp_path: Path) -> None:
    """It says how to get one; the history is empty; an unknown model is named."""
    packages = box_of(tmp_path / "packages")
    with running_service(packages, tmp_path / "state") as service:
        seen = visit(service.url, tmp_path / "visit", "nothing")["result"]
    assert "callme new NAME" in seen["home"]["said"]
    assert "nosuch" in seen["lost"]["said"]
    assert faults(seen) == {}
