"""docs/examples/web-app.html as a site: its models, its server, a browser on it, and a server that
answers now and then."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from deno_server import ROOT, find_deno, plain_env
from example_page import CDN, PUPPETEER, SHAPES, SPEECH, SUPABASE_JS, filled, script_in
from npm_tools import npm_folder
from supabase_project import PUBLIC_KEY
from test_client import CLIENT

PAGE = ROOT / "docs" / "examples" / "web-app.html"
LIMIT_S = 400
MODELS = ("fluency", "grounding", "sketch2real")
IS_REAL = bool(os.environ.get("CALLME_REAL_MODELS"))
SMALL = """
import base64
import tempfile
import time
from typing import Any

from cog import BaseModel, BaseRunner, Input, Path

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Output(BaseModel):
    size: int
    suffix: str
    fluency_score: float | None
    pause_time_s: float
    transcript: str | None
    detections: list[dict[str, Any]] | None
    picture: Path


class Runner(BaseRunner):
    def run(
        self,
        image: Path | None = Input(default=None),
        audio: Path | None = Input(default=None),
        prompt: str = Input(default=""),
        text_queries: str = Input(default=""),
        previews: bool = Input(default=False),
        annotated: bool = Input(default=False),
        timeline: bool = Input(default=False),
    ) -> Output:
        if previews:
            print(f"preview: data:image/png;base64,{PIXEL}")
        print("50%|###", flush=True)
        time.sleep(2)  # so that the box is killed, and the page loaded again, before the end
        picture = Path(tempfile.mkdtemp()) / "picture.png"
        picture.write_bytes(base64.b64decode(PIXEL))
        found = [{"label": "dog", "score": 0.9, "box": [1, 2, 3, 4]}]
        return Output(
            size=len((image or audio).read_bytes()),
            suffix=(image or audio).suffix,
            fluency_score=87.4 if timeline else None,
            pause_time_s=1.26,
            transcript="so much depends" if timeline else None,
            detections=found if annotated else None,
            picture=picture,
        )
"""


# A client whose user has four runs. Two end while the page follows them: for one the connection was
# lost, the other has failed.
HISTORY = """
const row = (model, more) => ({ id: model, model, version: 1, log_tail: "", progress: 5, ...more });
const lost = new TypeError("Failed to fetch");
const missing = { image: "storage://callme-outputs/gone.png", seed: 7 };
const rows = [
  row("plain", { status: "succeeded", output: { text: "hello" } }),
  row("running", { status: "processing" }),
  row("fails", { status: "processing" }),
  row("gone", { status: "succeeded", output: missing }),
];
export const createCallme = () => ({
  list: async () => rows.map((one) => ({ ...one })),
  url: () => Promise.reject(new Error("Object not found")),
  follow: async (id, { onProgress }) => {
    const mine = rows.find((one) => one.id === id);
    onProgress({ ...mine });
    if (id === "running") throw lost;
    Object.assign(mine, { status: "failed", error: "No memory", version: 2 });
    throw new Error("No memory");
  },
});
"""
OFFLINE = "The service cannot be reached. Are you online?"
# Its first words: the key is wrong, or nothing answers, as supabase-js puts it.
REFUSED = """
const auth = {
  getSession: async () => ({ data: {} }),
  signInAnonymously: async () => ({ error: { message: MESSAGE, status: STATUS } }),
};
window.supabase = { createClient: () => ({ auth }) };
"""
SESSION = "{ auth: { getSession: async () => ({ data: { session: {} } }) } }"


def page_of(url: str, library: str = "supabase.js") -> str:
    """The page's text for the project at this address."""
    values = {CDN: library, "https://<ref>.supabase.co": url, "sb_publishable_…": PUBLIC_KEY}
    return filled(PAGE, values)


def make_site(folder: Path, url: str) -> None:
    """The page for the project at this address, with its two scripts."""
    folder.mkdir()
    (folder / "index.html").write_text(page_of(url))
    (folder / "favicon.ico").write_bytes(b"")
    library = npm_folder(SUPABASE_JS) / "node_modules" / SUPABASE_JS[0] / "dist/umd/supabase.js"
    shutil.copyfile(library, folder / "supabase.js")
    bundle = [str(find_deno()), "bundle", str(CLIENT), "-o", str(folder / "callme.js")]
    subprocess.run(bundle, env=plain_env(), capture_output=True, timeout=120, check=True)


@contextmanager
def browsing(
    url: str, folder: Path, script: str = "web_app.mjs"
) -> Iterator[subprocess.Popen[str]]:
    """A person at the page. Its output says what was seen."""
    chromium = importlib.import_module("tests.e2e.chromium").find_chromium()
    node = shutil.which("node") or pytest.skip("needs node on PATH, for puppeteer-core")
    task = script_in(
        *(folder, Path(__file__).with_name(script), npm_folder(PUPPETEER) / "node_modules"),
        chromium=chromium,
        url=url,
        away=str(folder / "away"),
        limitMs=LIMIT_S * 1000,
    )
    process = subprocess.Popen(
        [str(node), script],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(task)
    process.stdin.close()
    process.stdin = None
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def unreliable(
    target: Callable[[], str], told: list[tuple[str, str]]
) -> type[BaseHTTPRequestHandler]:
    """A way to the webhook function on which the first report of each end is lost, so that it comes
    late, and each report comes a second time, after what followed it. `told`: id and state of each
    that has arrived."""
    lost: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            event = json.loads(body)
            is_end = event.get("status") in ("succeeded", "failed")
            if is_end and event.get("event") != "files" and event["id"] not in lost:
                lost.add(event["id"])
                return self._answer(503, b"")
            said = self._forward(body)
            if event.get("event") != "files":
                told.append((event["id"], event["status"]))
                threading.Thread(target=self._again, args=(body,), daemon=True).start()
            return self._answer(said.status_code, said.content)

        def _again(self, body: bytes) -> None:
            time.sleep(1.5)
            with suppress(httpx.HTTPError):  # the test may have ended
                self._forward(body)

        def _forward(self, body: bytes) -> httpx.Response:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            return httpx.post(target() + self.path, content=body, headers=headers, timeout=60)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Silent: a test prints what it needs."""

    return Handler


def packages_in(folder: Path) -> Path:
    """The folder with the packages."""
    if IS_REAL:
        return ROOT
    for name in MODELS:
        (folder / name).mkdir(parents=True)
        (folder / name / "run.py").write_text(SMALL)
        (folder / name / "cog.yaml").write_text('run: "run.py:Runner"\n')
    return folder


def check_results(seen: list[dict[str, Any]]) -> None:
    """What the page shows of each run."""
    cards = {card["title"]: card for card in seen}
    assert sorted(card["title"] for card in seen) == sorted(
        f"{model}: succeeded" for model in (*MODELS, "grounding", "fluency")
    )
    text = {model: cards[f"{model}: succeeded"]["text"] for model in MODELS}
    recorded = next(card for card in seen if card["title"].startswith("fluency"))
    assert re.match(r"Fluency\s+\d+ of 100", recorded["first"]), "what people look at first"
    for card in seen:
        assert all(card["pictures"])
        assert card["pictures"]  # a timeline, a painting, what was found
    if IS_REAL:
        assert "leisure to consider" in text["fluency"]
        assert '"person"' in text["grounding"]
        return
    assert '"suffix": ".webm"' in recorded["text"]
    shown = " ".join(recorded["first"].split())
    assert shown.startswith("Fluency 87 of 100 Speed – Few breaks –")
    assert shown.endswith("Pauses –, 1.3 s")
    assert "Found: dog 90 %" in text["grounding"]
    assert f'"size": {SPEECH.stat().st_size}' in text["fluency"], "as it was chosen"
    assert f'"size": {SHAPES.stat().st_size}' in text["grounding"]
