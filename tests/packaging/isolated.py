"""A package the way its image would be: a fresh virtual environment of what its own
requirements.txt brings, a copy of its folder less .dockerignore, and Cog's own server in it.

`cog build` needs Docker. What it puts into the image beside the base does not: the Python of
cog.yaml, the requirements, the folder, the schema read from the runner, the environment.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import mimetypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.linked_environment import link
from tests.waiting import free_port

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
SCHEMA_SCRIPT = ROOT / "router" / "models" / "runner_schema.py"
STEP_TIMEOUT_S = 900
READY_TIMEOUT_S = 300
UNCOPIED = (".venv", ".cog", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
sys.path.insert(0, str(ROOT / "deploy"))
cog_image = importlib.import_module("cog_image")


class StepError(AssertionError):
    """One step of building or running the package failed; says which, and its last words."""


def step(name: str, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> str:
    """Run one step and return its stdout. Raises StepError."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise StepError(f"step '{name}' ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


@dataclass(frozen=True)
class Image:
    """What was built: the copy of the folder, the environment's own variables, and how many
    predictions the runner itself says that it may run at once."""

    folder: Path
    venv: Path
    env: Mapping[str, str]
    max_concurrency: int = 1

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / "bin" / "python"


def build(package: Path, scratch: Path) -> Image:
    """Make the environment and the copy in `scratch`, and read the schema. Raises StepError."""
    config = yaml.safe_load((package / "cog.yaml").read_text())
    build_part = config["build"]
    folder, venv, home = scratch / "src", scratch / "venv", scratch / "home"
    home.mkdir(parents=True)
    python = str(build_part["python_version"])
    assert sys.version.startswith(python), "the tests run on the Python of cog.yaml"
    step(
        "make an environment",
        [sys.executable, "-m", "venv", "--without-pip", venv],
        os.environ,
        scratch,
    )
    lines = (package / build_part["python_requirements"]).read_text().splitlines()
    try:
        link((line for line in lines if line and not line.startswith("#")), venv)
    except LookupError as error:
        raise StepError(f"step 'install requirements.txt' failed: {error}") from error
    _copy(package, folder)
    variables = dict(line.split("=", 1) for line in config.get("environment") or [])
    # Nothing of this process's environment: what an image has, and where temp files may lie.
    env = {
        "PATH": f"{venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    script = shutil.copy(SCHEMA_SCRIPT, scratch)
    read: list[str | Path] = [venv / "bin" / "python", script, config["run"]]
    printed = step("read the runner's schema", read, env, folder)
    described = json.loads(printed.strip().splitlines()[-1])
    (folder / ".cog").mkdir()
    (folder / ".cog" / "openapi_schema.json").write_text(json.dumps(described["schema"]))
    return Image(folder, venv, env, described["max_concurrency"])


def files_in_image(package: Path) -> set[str]:
    """The files of the package's folder that its image holds, as paths relative to the folder.

    Modal's FilePatternMatcher is a port of the matcher by which Docker reads .dockerignore.
    """
    patterns = (*cog_image.UNCOPIED, *cog_image.read_dockerignore(package))
    from modal import FilePatternMatcher  # here: it takes a second, and few tests need it

    is_ignored = FilePatternMatcher(*patterns)
    found = set()
    for folder, _, names in os.walk(package):
        paths = [(Path(folder) / name).relative_to(package) for name in names]
        found |= {str(path) for path in paths if not is_ignored(path)}
    return found


def _copy(package: Path, folder: Path) -> None:
    """What the image holds of the folder. Weights are linked, not copied: they are only read."""
    for name in files_in_image(package):
        source, target = package / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        big = source.stat().st_size > 1 << 20
        try:
            (os.link if big else shutil.copy2)(source, target)
        except OSError:
            shutil.copy2(source, target)


def example(folder: Path) -> dict[str, Any]:
    """The package's example.json with its files as data: URIs, as any Cog client sends them."""
    inputs = json.loads((folder / "example.json").read_text())
    for name, value in inputs.items():
        if isinstance(value, str) and value.startswith("@"):
            kind = mimetypes.guess_type(value)[0] or "application/octet-stream"
            text = base64.b64encode((folder / value[1:]).read_bytes()).decode()
            inputs[name] = f"data:{kind};base64,{text}"
    return dict(inputs)


@dataclass(frozen=True)
class Server:
    """Cog's server in the environment. `http` is a client of its address."""

    http: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path

    def health(self) -> str:
        """The status, "" while it does not answer."""
        try:
            return str(self.http.get("/health-check", timeout=10).json()["status"])
        except httpx.TransportError:
            return ""

    def predict(self, **inputs: Any) -> httpx.Response:
        """POST a prediction; again while the slot of the one before is not yet free."""
        deadline = time.monotonic() + 30
        while True:
            answer = self.http.post("/predictions", json={"input": inputs})
            if answer.status_code != 409 or time.monotonic() > deadline:
                return answer
            time.sleep(0.01)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def serving(image: Image, runner: str, env: Mapping[str, str]) -> Iterator[Server]:
    """Start `python -m cog.server.http` as the image does, wait for READY, end its group."""
    port = free_port()
    log_path = image.folder.parent / "server.log"
    told = {
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": runner,
        "COG_SETUP_TIMEOUT": "300",
        "COG_MAX_CONCURRENCY": str(image.max_concurrency),
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["python", "-m", "cog.server.http", "--host", "127.0.0.1"],
            executable=str(image.python),
            cwd=image.folder,
            env={**image.env, **told, **env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
            server = Server(http, process, log_path)
            _wait_ready(server)
            yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (status := server.health()) != "READY":
        over = server.process.poll() is not None or time.monotonic() > deadline
        if over or status not in ("", "STARTING"):
            raise StepError(f"step 'start the server' ended {status}:\n{server.last_words()}")
        time.sleep(0.1)
