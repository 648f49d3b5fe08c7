"""Visits of the box's page in a real Chromium: scenarios.mjs says what is done."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chromium import find_chromium
from tests.edge.npm_tools import npm_folder

HERE = Path(__file__).with_name("pages")
# The last puppeteer-core that runs on node 20.
PUPPETEER = ("puppeteer-core", "24.8.2")
AXE = ("axe-core", "4.14.1")
LIMIT_S = 240


def visit(
    url: str,
    folder: Path,
    scenario: str,
    told: Mapping[str, Callable[[], object]] | None = None,
    limit_s: float = 2 * LIMIT_S,
    **task: object,
) -> Any:
    """Do the scenario on the page at `url` and return what it saw.

    `told`: what to do when the scenario prints a word. `limit_s`: for all of it.
    Fails when the scenario does, or when the page asked another host for anything.
    """
    chromium, node = find_chromium(), shutil.which("node")
    if node is None:
        pytest.skip("needs node on PATH, for puppeteer-core")
    folder.mkdir(exist_ok=True)
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(npm_folder(PUPPETEER) / "node_modules")
    for script in HERE.glob("*.mjs"):
        shutil.copyfile(script, folder / script.name)
    body = {
        "chromium": chromium,
        "url": url,
        "profile": str(folder / "profile"),
        "scenario": scenario,
        "limitMs": LIMIT_S * 1000,
        "axe": str(npm_folder(AXE) / "node_modules" / "axe-core" / "axe.min.js"),
        **task,
    }
    child = subprocess.Popen(
        [node, "visit.mjs"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin
    assert child.stdout
    assert child.stderr
    said: list[str] = []
    # Read beside, so that a browser that complains a lot is not stopped by a full pipe.
    reader = threading.Thread(target=lambda: said.extend(child.stderr or ()))
    reader.start()
    ending = threading.Timer(limit_s, child.kill)
    ending.start()
    try:
        child.stdin.write(json.dumps(body))
        child.stdin.close()
        last = ""
        for line in child.stdout:
            last = line.strip()
            if told and last in told:
                told[last]()
        code = child.wait()
    finally:
        ending.cancel()
        child.kill()
        reader.join()
    assert code == 0, "".join(said)
    seen = json.loads(last)
    assert seen["elsewhere"] == []
    return seen
