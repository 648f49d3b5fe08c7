"""The page for people in a real browser: what is drawn, what is asked, what survives."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from tests.e2e.chromium import find_chromium
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, running_service

PACKAGES = ROOT / "tests" / "packages"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages that no page knows, and one that cannot be served."""
    find_chromium()
    folder = tmp_path_factory.mktemp("pages")
    for name in ("allkinds", "echo"):
        ignored = shutil.ignore_patterns(".cog", "__pycache__")
        shutil.copytree(PACKAGES / name, folder / name, ignore=ignored)
    (folder / "half").mkdir()
    (folder / "half" / "cog.yaml").write_text("build: {}\n")
    return folder


@pytest.mark.timeout(400)
def test_the_box_at_a_glance(packages: Path, tmp_path: Path) -> None:
    """A card changes as its model starts, runs and rests; memory, what happened and what is left
    out are there; nothing scrolls sideways at 360 px; axe-core finds nothing, light or dark."""
    env = {"ECHO_SETUP_S": "1"}
    with running_service(packages, tmp_path / "state", env) as service:
        saw = visit(service.url, tmp_path / "visit", "glance", card=2)
    result = saw["result"]
    assert result["cards"] == ["allkinds", "echo"]
    assert result["before"] == "stopped"
    assert result["memory"]["label"].startswith("echo ")
    assert result["memory"]["parts"] == 1
    assert any("half" in s and "lacks `run: file.py:Class`" in s for s in result["leftOut"])
    assert (result["sideways"], result["axe"], result["axeDark"]) == (0, [], [])
    assert saw["complaints"] == []


@pytest.mark.timeout(400)
def test_the_page_asks_for_a_key(packages: Path, tmp_path: Path) -> None:
    """It loads without one, says what a wrong one means, keeps a right one in the session only
    and never in the address."""
    key = "page-key-0123456789abcdef0123456789abcdef"
    with running_service(packages, tmp_path / "state", {"CALLME_KEYS": f"page:{key}"}) as service:
        saw = visit(service.url, tmp_path / "visit", "keys", key=key)
    result = saw["result"]
    assert result["asked"] == []
    assert result["kept"] == [[key], 0]
    assert result["url"] == f"{service.url}/"
    assert result["cards"] == ["allkinds", "echo"]
    # The refusals that this is about, as the browser's console tells them.
    assert all("401" in c or "403" in c for c in saw["complaints"])


@pytest.mark.timeout(400)
def test_the_box_is_restarted_under_the_page(packages: Path, tmp_path: Path) -> None:
    """The page says that the connection is lost, keeps what it showed, and connects again."""
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        service = first.enter_context(running_service(packages, tmp_path / "state"))
        port = int(service.url.rsplit(":", 1)[1])
        again = running_service(packages, tmp_path / "state", port=port)
        told = {"stop": first.close, "start": lambda: second.enter_context(again)}
        saw = visit(service.url, tmp_path / "visit", "restart", told)
    assert "cannot be reached" in saw["result"]["lost"][0]
    assert saw["result"]["cards"] == ["allkinds", "echo"]
