"""A page of docs/examples: filled in for a test's project, on a web server of its own, and with a
script that drives a browser on it."""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The last puppeteer-core that runs on node 20.
PUPPETEER = ("puppeteer-core", "24.8.2")
SUPABASE_JS = ("@supabase/supabase-js", "2.119.1")
CDN = "https://cdn.jsdelivr.net/npm/@supabase/supabase-js@2.119.1/dist/umd/supabase.js"
SPEECH = ROOT / "fluency" / "samples" / "speech.wav"
SHAPES = ROOT / "grounding" / "samples" / "shapes.png"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Silent: a test prints what it needs."""


@contextmanager
def serving(handler: Any) -> Iterator[str]:
    """A web server on a free loopback port; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def filled(page: Path, values: Mapping[str, str]) -> str:
    """The page's text with each placeholder, which it has once, replaced by its value."""
    text = page.read_text()
    for placeholder, value in values.items():
        assert text.count(placeholder) == 1, placeholder
        text = text.replace(placeholder, value)
    return text


def script_in(folder: Path, script: Path, modules: Path, **task: object) -> str:
    """Put the script into the folder, with node's modules. Return its task, as JSON."""
    (folder / "node_modules").symlink_to(modules)
    shutil.copyfile(script, folder / script.name)
    common = {"profile": str(folder / "profile"), "audio": str(SPEECH), "picture": str(SHAPES)}
    return json.dumps({**common, **task})
