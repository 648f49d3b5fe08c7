"""The example page in a real browser: to a stand-in box, and along the whole chain to a model."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.chromium import find_chromium
from tests.e2e.public_box import PROJECT, TOKEN, make_cloudflared, running_platform
from tests.e2e.service import ROOT, running_service
from tests.edge.box import Answer, Received, running_box
from tests.edge.deno_server import edge_function
from tests.edge.example_page import (
    CDN,
    PUPPETEER,
    SPEECH,
    SUPABASE_JS,
    Quiet,
    filled,
    script_in,
    serving,
)
from tests.edge.npm_tools import npm_folder
from tests.waiting import wait_until

PAGE = ROOT / "docs" / "examples" / "one-request.html"
SAID = "leisure to consider how much there might be"
LIMIT_S = 150


@contextlib.contextmanager
def page_for(function_url: str, folder: Path) -> Iterator[str]:
    """The page, made for the function at this address, on a web server of its own origin."""
    values = {
        CDN: "supabase.js",
        "https://<ref>.supabase.co": function_url,
        "sb_publishable_…": "sb_publishable_test",
    }
    library = npm_folder(SUPABASE_JS) / "node_modules" / SUPABASE_JS[0] / "dist/umd/supabase.js"
    folder.mkdir()
    (folder / "index.html").write_text(filled(PAGE, values))
    (folder / "favicon.ico").write_bytes(b"")
    shutil.copyfile(library, folder / "supabase.js")
    with serving(functools.partial(Quiet, directory=str(folder))) as url:
        yield f"{url}/"


def browse(url: str, folder: Path, *steps: str) -> dict[str, Any]:
    """What a person sees who does these steps on the page."""
    chromium, node = find_chromium(), shutil.which("node")
    if node is None:
        pytest.skip("needs node on PATH, for puppeteer-core")
    task = script_in(
        *(folder, Path(__file__).with_name("browser.mjs"), npm_folder(PUPPETEER) / "node_modules"),
        chromium=chromium,
        url=url,
        steps=steps,
        limitMs=LIMIT_S * 1000,
    )
    done = subprocess.run(
        [node, "browser.mjs"],
        cwd=folder,
        input=task,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(seen, dict)
    return seen


def model_answer(request: Received) -> Answer:
    """What the models would say, in the fields that the page reads."""
    if request.path == "/fluency":
        refusal = {"error": {"code": "queue_full", "message": "64 are waiting"}}
        headers = {"Content-Type": "application/json", "Retry-After": "12"}
        return Answer(429, json.dumps(refusal).encode(), headers)
    if request.path == "/sketch2real":
        pixel = io.BytesIO()
        Image.new("RGB", (1, 1), "red").save(pixel, "PNG")
        uri = f"data:image/png;base64,{base64.b64encode(pixel.getvalue()).decode()}"
        return Answer(body=json.dumps({"image": uri}).encode())
    box = {"box": [10, 10, 50, 50], "label": "dog", "score": 0.9}
    return Answer(body=json.dumps({"detections": [box]}).encode())


@pytest.mark.timeout(600)
def test_the_page_draws_finds_and_tells_of_refusals(tmp_path: Path) -> None:
    """A drawn line arrives as a drawing, a photo with its words, and an error's message and
    Retry-After reach the person. The page's own origin passes CORS."""
    find_chromium()
    with (
        running_box(model_answer) as box,
        edge_function({"GPU_BACKEND_URL": box.url}) as function,
        page_for(function, tmp_path / "site") as url,
    ):
        seen = browse(url, tmp_path, "draw", "find", "choose")
    assert (seen["draw"]["state"], seen["draw"]["image"][:22]) == (
        "done",
        "data:image/png;base64,",
    )
    assert (seen["find"]["state"], "1 found" in seen["find"]["text"]) == ("done", True)
    assert seen["find"]["canvas"] == 480
    assert seen["choose"]["state"] == "error"
    assert "64 are waiting Try again in 12 s." in seen["choose"]["text"]
    parts = {request.path: request.parts() for request in box.received}
    drawn = Image.open(io.BytesIO(parts["/sketch2real"]["image"].data)).convert("L")
    assert drawn.size == (512, 384)
    assert parts["/sketch2real"]["prompt"].data == b"a line"
    assert drawn.getextrema() == (0, 255)
    assert parts["/grounding"]["text_queries"].data == b"person, dog"
    assert parts["/grounding"]["image"].content_type == "image/jpeg"
    assert parts["/fluency"]["audio"].data == SPEECH.read_bytes()
    assert [c for c in seen["complaints"] if "429" not in c] == []


@pytest.mark.timeout(400)
def test_the_page_says_what_it_lacks(tmp_path: Path) -> None:
    """Opened as it is, or without internet, it says why it does not work."""
    find_chromium()
    with page_for("http://127.0.0.1:9", tmp_path / "site") as url:
        site = tmp_path / "site"
        (site / "offline.html").write_text(
            (site / "index.html").read_text().replace('src="supabase.js"', 'src="gone.js"')
        )
        (site / "index.html").write_text(PAGE.read_text().replace(CDN, "supabase.js"))
        seen = browse(url, tmp_path, "notice", "offline")
    assert "set SUPABASE_URL and PUBLISHABLE_KEY" in seen["notice"]
    assert "Are you online?" in seen["offline"]
    assert all("404" in c for c in seen["complaints"])


@pytest.mark.timeout(900)
def test_from_the_browser_to_the_model(tmp_path: Path) -> None:
    """Chromium with supabase-js, the edge function under Deno, a tunnel, `callme up --public`,
    the real model: an uploaded recording is understood, and one from the microphone."""
    find_chromium()
    npm_folder(PUPPETEER)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "fluency").symlink_to(ROOT / "fluency")
    cloudflared = make_cloudflared(tmp_path / "cloudflared")
    cloudflared.open_on_localhost()
    authority = str(cloudflared.certificate_authority)
    argv = [sys.executable, "-m", "router.cli", "up", "--public"]
    with running_platform() as platform:
        env = {
            "PATH": f"{cloudflared.program.parent}:{os.environ['PATH']}",
            "SSL_CERT_FILE": authority,
            "SUPABASE_PROJECT_ID": PROJECT,
            "SUPABASE_ACCESS_TOKEN": TOKEN,
            "CALLME_SUPABASE_API_URL": platform.url,
            "CALLME_WEIGHTS": "demo",
        }
        with running_service(tmp_path / "packages", tmp_path / "state", env, argv) as service:
            wait_until(lambda: platform.secrets)
            wait_until(lambda: "Stop: Ctrl-C" in service.log(), 600)
            with (
                edge_function({**platform.secrets, "DENO_CERT": authority}) as function,
                page_for(function, tmp_path / "site") as url,
            ):
                seen = browse(url, tmp_path, "choose", "record")
            assert seen["choose"]["state"] == "done", seen
            assert SAID in seen["choose"]["text"]
            assert seen["choose"]["text"].startswith("Fluency")
            assert seen["choose"]["image"].startswith("data:image/png;base64,")
            assert seen["record"]["state"] == "done", seen
            assert seen["complaints"] == []
