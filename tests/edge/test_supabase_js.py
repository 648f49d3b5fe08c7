"""The web app's side as README.md shows it: the snippet runs, word for word, on supabase-js."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from box import JSON, Answer, Box
from deno_server import ROOT, edge_function, plain_env
from npm_tools import npm_folder

PUBLISHABLE_KEY = "sb_publishable_test"
SUPABASE_JS = ("@supabase/supabase-js", "2.119.1")

# What a page has and Node 20 lacks: the recording, FileReader, and a WebSocket, which supabase-js
# wants to see although nothing here opens one. `fetch` is watched on its way.
BROWSER = """
globalThis.WebSocket ??= class {};
globalThis.blob = new Blob([new Uint8Array(BYTES)], { type: "audio/webm;codecs=vp8,opus" });
globalThis.FileReader = class {
  readAsDataURL(blob) {
    blob.arrayBuffer().then((buffer) => {
      this.result = `data:${blob.type};base64,${Buffer.from(buffer).toString("base64")}`;
      this.onload();
    });
  }
};
globalThis.sent = [];
const realFetch = globalThis.fetch;
globalThis.fetch = (input, init) => {
  sent.push([...new Headers(init.headers).keys()]);
  return realFetch(input, init);
};
globalThis.said = [];
console.error = (...words) => said.push(words);
"""
REPORT = "\nconsole.log(JSON.stringify({ data, failed: error !== null, sent, said }));\n"


def run_snippet(url: str, folder: Path, clip: bytes) -> dict[str, Any]:
    """Runs README.md's browser snippet against `url`, its placeholder address replaced."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node on PATH, for supabase-js")
    readme = (ROOT / "supabase" / "README.md").read_text()
    snippet = re.search(r"```js\n(.*?)```", readme, re.DOTALL)
    assert snippet is not None and "https://<ref>.supabase.co" in snippet[1]
    code = snippet[1].replace("https://<ref>.supabase.co", url)
    code = code.replace("sb_publishable_…", PUBLISHABLE_KEY)
    modules = npm_folder(SUPABASE_JS) / "node_modules"
    (folder / "node_modules").symlink_to(modules)
    (folder / "browser.mjs").write_text(BROWSER.replace("BYTES", json.dumps(list(clip))))
    (folder / "page.mjs").write_text('import "./browser.mjs";\n' + code + REPORT)
    done = subprocess.run(
        [node, "page.mjs"],
        cwd=folder,
        env=plain_env(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(report, dict)
    return report


@pytest.mark.timeout(400)
def test_the_snippet_gets_the_models_answer(box: Box, tmp_path: Path) -> None:
    """functions.invoke sends the recording, its key is accepted, the model's JSON comes back."""
    box.behaviour = lambda _: Answer(body=b'{"speech": true, "wpm": 1.5}')
    clip = bytes(range(256)) * 3
    keys = json.dumps({"default": PUBLISHABLE_KEY})
    secrets = {"BACKEND_SERVER_AUTH": "publishable", "SUPABASE_PUBLISHABLE_KEYS": keys}
    with edge_function({"GPU_BACKEND_URL": box.url, **secrets}) as url:
        report = run_snippet(url, tmp_path, clip)
        # A browser would ask first whether these headers may be sent; Node does not.
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        wanted = ",".join(report["sent"][0])
        answer = httpx.options(url, headers={**asked, "Access-Control-Request-Headers": wanted})
    assert report["data"] == {"speech": True, "wpm": 1.5}
    assert answer.status_code == 204
    granted = {name.strip() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
    assert {"apikey", "content-type"} <= set(report["sent"][0]) <= granted
    part = box.received[0].parts()["audio"]
    assert (part.data, part.filename) == (clip, "audio.webm")
    assert part.content_type == "audio/webm;codecs=vp8,opus"


@pytest.mark.timeout(400)
def test_the_snippet_reads_the_boxs_refusal(box: Box, tmp_path: Path) -> None:
    """The error's code, message and Retry-After reach the page as the snippet reads them."""
    refusal = {"error": {"code": "queue_full", "message": "64 are waiting"}}
    headers = {**JSON, "Retry-After": "12"}
    box.behaviour = lambda _: Answer(429, json.dumps(refusal).encode(), headers)
    with edge_function({"GPU_BACKEND_URL": box.url}) as url:
        report = run_snippet(url, tmp_path, b"clip")
    assert (report["data"], report["failed"]) == (None, True)
    assert report["said"] == [["queue_full", "64 are waiting", "12"]]
