"""The page for people in a real browser: what is drawn, what is asked, what survives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chromium import find_chromium
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, running_service
from tests.edge.npm_tools import npm_folder
from tests.package_copies import packages_in

PACKAGES = ROOT / "tests" / "packages"
REPLICATE = ("replicate", "1.4.0")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages that no page knows, and one that cannot be served."""
    find_chromium()
    folder = packages_in(tmp_path_factory.mktemp("pages"), "allkinds", "echo", "poet")
    (folder / "half").mkdir()
    (folder / "half" / "cog.yaml").write_text("build: {}\n")
    return folder


@pytest.mark.timeout(700)
def test_the_box_at_a_glance(packages: Path, tmp_path: Path) -> None:
    """A card changes as its model starts, runs and rests, and as it is unloaded, loaded and
    restarted from the card, which follows its log and says why it is not restarted. Memory, what
    happened and what is left out are there; nothing scrolls sideways at 360 px; axe-core finds
    nothing, light or dark."""
    env = {"ECHO_SETUP_S": "1"}
    with running_service(packages, tmp_path / "state", env) as service:
        runner = str(packages / "echo" / "run.py")
        saw = visit(service.url, tmp_path / "visit", "glance", card=2, runner=runner)
    result = saw["result"]
    assert result["cards"] == ["allkinds", "echo", "poet"]
    assert result["before"] == "stopped"
    assert result["memory"]["label"].startswith("echo ")
    assert result["memory"]["parts"] == 1
    operated = result["operated"]
    assert operated["perMinute"] == "1"
    assert "Cannot restart 'echo': SyntaxError" in operated["refused"]
    assert operated["logAxe"] == []
    assert any("half" in s and "lacks `run: file.py:Class`" in s for s in result["leftOut"])
    assert (result["sideways"], result["axe"], result["axeDark"]) == (0, [], [])
    assert "-F photo=@FILE" in result["api"]["first"]
    assert "strength=" not in result["api"]["first"]  # it has a default
    assert (result["api"]["sideways"], result["api"]["axe"]) == (0, [])
    # What was refused, as the browser's console tells it.
    assert all("503" in c for c in saw["complaints"])


@pytest.mark.timeout(700)
def test_the_page_asks_for_a_key(packages: Path, tmp_path: Path) -> None:
    """It loads without one, says what a wrong one means, keeps a right one in the session only
    and never in the address."""
    key = "page-key-0123456789abcdef0123456789abcdef"
    with running_service(packages, tmp_path / "state", {"CALLME_KEYS": f"page:{key}"}) as service:
        saw = visit(service.url, tmp_path / "visit", "keys", key=key)
    result = saw["result"]
    assert result["asked"] == []
    assert result["kept"] == [[key], 0]
    assert result["buttons"] == 0  # the key is no admin's
    assert result["url"] == f"{service.url}/"
    assert result["cards"] == ["allkinds", "echo", "poet"]
    # The refusals that this is about, as the browser's console tells them.
    assert all("401" in c or "403" in c for c in saw["complaints"])


@pytest.mark.timeout(700)
def test_the_box_is_restarted_under_the_page(packages: Path, tmp_path: Path) -> None:
    """The page says that the connection is lost, keeps what it showed, and connects again; also
    when the network is gone for a while. A run that the box was killed in ends on its page."""
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        service = first.enter_context(running_service(packages, tmp_path / "state"))
        port = int(service.url.rsplit(":", 1)[1])
        again = running_service(packages, tmp_path / "state", port=port)
        told = {"kill": service.child.kill, "start": lambda: second.enter_context(again)}
        saw = visit(service.url, tmp_path / "visit", "restart", told)
    assert "cannot be reached" in saw["result"]["lost"][0]
    assert saw["result"]["after"] == ["beside the white chickens"]
    assert saw["result"]["cards"] == ["allkinds", "echo", "poet"]


@pytest.mark.timeout(900)
def test_a_model_that_no_page_knows(packages: Path, tmp_path: Path) -> None:
    """Its form has a control for every kind of input, unions and objects too. Its result is drawn
    by its shape: boxes on the picture that was sent, times under the recording. A reload and the
    history show the same, with the files but without the secret, until it is deleted."""
    letter = tmp_path / "letter.txt"
    letter.write_text("page one")
    with running_service(packages, tmp_path / "state") as service:
        saw = visit(service.url, tmp_path / "visit", "everything", letter=str(letter))
        result = saw["result"]
        output = json.loads(result["stored"])["output"]
        id_ = result["address"].rsplit("/", 1)[1]
        assert service.http.get(f"/predictions/{id_}").status_code == 404
        assert not [p for p in (service.state / "outputs").rglob("*") if p.is_file()]
        codes: dict[str, str] = result["code"]
        by_code = [run_code(k, v, tmp_path / k, packages, service.url) for k, v in codes.items()]
    assert output["seen"] == {
        "photo_bytes": (packages / "allkinds/samples/shapes.png").stat().st_size,
        "speech_head": "RIFF",
        **{"title": "an example", "code": "777", "strength": 0.8, "style": "wax", "loud": True},
        **{"seed": 9007199254740993, "tags": ["x", "y"], "pages": ["page one"], "token": 9},
        **{"either": ["only one"], "sure": False, "options": {"a": [1, "b"]}},
        "points": [{"x": 1.5}],
    }
    for drawn in (result["first"], result["again"]):
        assert drawn["state"] == "succeeded"
        assert ["Picture", 240, 160] in drawn["pictures"]
        ((under),) = drawn["under"]
        cat = drawn["boxes"][0]
        assert (cat["left"], cat["top"]) == (under["left"] + 10, under["top"] + 10)
        assert (cat["width"], cat["height"]) == (80, 110)
        assert (drawn["marks"], drawn["wave"], drawn["players"]) == (2, 1, 2)
        assert not overlapping(drawn["tags"])
    files = ["shapes.png", "recording.wav", "letter.txt"]
    assert result["kept"] == {
        **{"seed": "9007199254740993", "token": "", "style": "wax", "files": files},
        "either": ["array", "only one"],
    }
    for seen in by_code:
        assert seen == {**output["seen"], "token": len("<token>"), "seed": seen["seed"]}
    # JavaScript itself rounds the number in its code.
    assert [s["seed"] % 10 for s in by_code] == [2, 2, 3, 3]
    assert result["address"] in result["history"]
    assert "-F photo=@FILE" in result["empty"]  # the code would not run without it
    assert (result["phone"], result["formAxe"], result["resultAxe"]) == (0, [], [])
    # The deleted one, as the browser's console tells it.
    assert all("404" in c for c in saw["complaints"])


# In place of supabase-js and a browser: the edge function passes the inputs on as they are.
SUPABASE_STUB = """
export const createClient = () => ({ functions: { async invoke(name, { body }) {
  const { endpoint, ...input } = body;
  const answer = await fetch(`${process.env.BOX}/models/${endpoint}/predictions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ input }),
  });
  return { data: (await answer.json()).output };
} } });
"""
BROWSER = """
import { readFileSync } from "node:fs";
const [SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY] = ["", ""];
const files = ["shapes.png", "recording.wav", "letter.txt"].map((name) => readFileSync(name));
class FileReader {
  readAsDataURL(file) {
    this.result = `data:application/octet-stream;base64,${file.toString("base64")}`;
    queueMicrotask(() => this.onload());
  }
}
"""


def run_code(language: str, code: str, folder: Path, packages: Path, url: str) -> dict[str, Any]:
    """Run what the page shows to copy, where the files are that it names; what the model saw."""
    folder.mkdir(exist_ok=True)
    shutil.copy(packages / "allkinds/samples/shapes.png", folder)
    (folder / "letter.txt").write_text("page one")
    (folder / "recording.wav").write_bytes(b"RIFF")
    modules = folder / "node_modules"
    if language == "Supabase":
        stub = modules / "@supabase" / "supabase-js"
        stub.mkdir(parents=True)
        (stub / "package.json").write_text('{"type": "module", "main": "index.js"}')
        (stub / "index.js").write_text(SUPABASE_STUB)
        code = BROWSER + code
    else:
        modules.symlink_to(npm_folder(REPLICATE) / "node_modules")
    name, last, argv = {
        "curl": ("run.sh", "", ["bash"]),
        "Python": ("run.py", "\nimport json; print(json.dumps(output))", [sys.executable]),
        "JavaScript": ("run.mjs", "\nconsole.log(JSON.stringify(output));", ["node"]),
        "Supabase": ("run.mjs", "\nconsole.log(JSON.stringify(data));", ["node"]),
    }[language]
    for printed in ("print(output)", "console.log(output);", "console.log(error ?? data);"):
        code = code.removesuffix(printed)
    (folder / name).write_text(code + last)
    done = subprocess.run(
        [*argv, name],
        cwd=folder,
        env={**os.environ, "CALLME_KEY": "unused", "BOX": url},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, (code, done.stderr)
    seen: dict[str, Any] = json.loads(done.stdout)["seen"]
    return seen


def overlapping(boxes: list[dict[str, int]]) -> bool:
    """Whether two of them cover each other."""
    return any(
        a["left"] < b["left"] + b["width"]
        and b["left"] < a["left"] + a["width"]
        and a["top"] < b["top"] + b["height"]
        and b["top"] < a["top"] + a["height"]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


@pytest.mark.timeout(900)
def test_a_run_is_the_boxs_and_not_the_pages(packages: Path, tmp_path: Path) -> None:
    """A drawing is sent, the model's own objection stands beside its input, a run is canceled, and
    one goes on when its page is closed; another browser says which file it does not have."""
    with running_service(packages, tmp_path / "state") as service:
        saw = visit(service.url, tmp_path / "visit", "drawing")
    result = saw["result"]
    assert result["ink"] > 500
    assert result["objected"]["state"] == "failed"
    assert "not to my taste" in result["objected"]["notice"][0]
    assert result["beside"] == "It is not to my taste."
    assert result["canceled"] == "canceled"
    assert result["found"] == "succeeded"
    assert saw["complaints"] == []


@pytest.mark.timeout(700)
def test_a_text_that_streams(packages: Path, tmp_path: Path) -> None:
    """It can be read while it comes, as one text, and is whole in the end; on two pages at once,
    each has its own."""
    with running_service(packages, tmp_path / "state") as service:
        saw = visit(service.url, tmp_path / "visit", "streaming")
    state, text = saw["result"]["during"]
    assert state == "running"
    whole = "so much depends upon a red wheel barrow"
    assert whole.startswith(text)
    assert text != whole
    assert saw["result"]["both"] == [[whole], ["glazed with rain water"]]
