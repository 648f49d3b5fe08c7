"""The container recipe: what Docker is asked to build and, where it may be run, the image."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from modal import FilePatternMatcher

from tests.packaging.isolated import ROOT, UV, example, files_in_image
from tests.waiting import free_port

CONTAINER = ROOT / "deploy" / "container.py"
PACKAGES = sorted(p.parent for p in ROOT.glob("*/cog.yaml"))
# What the engine is asked, and what lies in the context, as JSON.
DOCKER_STAND_IN = """#!{python}
import json, pathlib, sys
context = pathlib.Path(sys.argv[-1])
files = {{str(p.relative_to(context)): p.stat().st_size for p in context.rglob("*") if p.is_file()}}
named = ("environment", "requirements.txt", "Dockerfile", ".dockerignore")
texts = {{n: (context / n).read_text() for n in named}}
pathlib.Path({record!r}).write_text(json.dumps([sys.argv[1:], files, texts]))
sys.exit({status})
"""


def run_recipe(
    tmp_path: Path, *argv: str, status: int = 0
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`python deploy/container.py …` with a `docker` that writes down what it is asked."""
    record = tmp_path / "record.json"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    text = DOCKER_STAND_IN.format(python=sys.executable, record=str(record), status=status)
    docker.write_text(text)
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        [sys.executable, str(CONTAINER), *argv],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(docker.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, record


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_what_docker_is_asked_for(tmp_path: Path, package: Path) -> None:
    """Each package: its CUDA base, its requirements, its folder without caches, its runner."""
    done, record = run_recipe(
        tmp_path, package.name, "--tag", f"callme-{package.name}", "--", "--network", "host"
    )
    assert done.returncode == 0, done.stderr
    argv, files, texts = json.loads(record.read_text())
    told = dict(a.removeprefix("--build-arg=").split("=", 1) for a in argv if "build-arg" in a)
    config = yaml.safe_load((package / "cog.yaml").read_text())
    assert argv[:3] == ["build", "--tag", f"callme-{package.name}"]
    assert argv[-3:-1] == ["--network", "host"]
    assert told["BASE"].startswith(f"nvidia/cuda:{config['build']['cuda']}.")
    assert told["RUNNER"] == "run.py:Runner"
    assert told["PYTHON_VERSION"] == "3.11"
    assert told["SYSTEM_PACKAGES"].split() == config["build"].get("system_packages", [])
    assert texts["requirements.txt"] == (package / "requirements.txt").read_text()
    assert {"src/run.py", "src/cog.yaml", "runner_schema.py"} <= set(files)
    is_ignored = FilePatternMatcher(*texts[".dockerignore"].splitlines())
    copied = {f.removeprefix("src/") for f in files if f.startswith("src/") and not is_ignored(f)}
    assert copied == files_in_image(package)
    assert not [f for f in files if ".venv" in f or "__pycache__" in f or "/.cog/" in f]
    for line in config.get("environment") or []:
        assert line in texts["environment"].splitlines()
    # Every argument is one that the recipe takes, and it takes no other without a default.
    declared = {w.split("=")[0] for w in _words_after("ARG", texts["Dockerfile"])}
    assert set(told) <= declared


def _words_after(word: str, text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith(f"{word} ")]


def test_failures_are_told(tmp_path: Path) -> None:
    """Docker's own status is passed on; what is no package is a sentence."""
    done, _ = run_recipe(tmp_path, PACKAGES[0].name, status=3)
    assert done.returncode == 3
    missing = subprocess.run(
        [sys.executable, str(CONTAINER), "nosuch"],
        env={**os.environ, "PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 2
    assert "Cannot read nosuch/cog.yaml" in missing.stderr


# ---- with an engine ---------------------------------------------------------------------

needs_engine = [
    pytest.mark.container,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.environ.get("CALLME_TEST_CONTAINER") != "1",
        reason="CALLME_TEST_CONTAINER=1 starts Docker (as root) and builds an image",
    ),
]


def run(*command: str | Path, env: dict[str, str], timeout_s: float = 1500) -> str:
    """Run it and return its stdout; its stderr is in the failure."""
    done = subprocess.run(
        [str(c) for c in command],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which `docker` works: the machine's own, or one started for the test,
    with no bridge and, where the kernel has no overlay file system, with plain copies (vfs)."""
    env = dict(os.environ)
    if answers(env):
        yield env
        return
    folder = tmp_path_factory.mktemp("docker")
    env["DOCKER_HOST"] = f"unix://{folder}/sock"
    log_path = folder / "log"
    with log_path.open("wb") as log:
        command = dockerd(folder, env["DOCKER_HOST"])
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not answers(env):
            assert daemon.poll() is None, log_path.read_text()[-3000:]
            assert time.monotonic() < deadline, log_path.read_text()[-3000:]
            time.sleep(0.2)
        yield env
    finally:
        daemon.terminate()
        daemon.wait(60)
        remove(folder)


def answers(env: dict[str, str]) -> bool:
    """Whether there is an engine."""
    return not subprocess.run(
        ["docker", "info"], env=env, capture_output=True, check=False
    ).returncode


def dockerd(folder: Path, host: str) -> list[str]:
    """An engine of which everything lies in `folder`, and which changes nothing outside."""
    driver = "overlay2" if "overlay" in Path("/proc/filesystems").read_text() else "vfs"
    without = ("bridge=none", "iptables=false", "ip6tables=false", "ip-forward=false")
    places = (f"{name}={folder}/{name}" for name in ("data-root", "exec-root", "pidfile"))
    options = (*without, *places, f"storage-driver={driver}", f"host={host}")
    return ["dockerd", *(f"--{option}" for option in options)]


def remove(folder: Path) -> None:
    """What the engine left. The network namespace of `--network host` stays mounted."""
    for mounted in (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()):
        if mounted.startswith(f"{folder}/"):
            subprocess.run(["umount", mounted], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def package() -> Path:
    """Which package is built: a small one, unless CALLME_TEST_CONTAINER_PACKAGE names another."""
    named = os.environ.get("CALLME_TEST_CONTAINER_PACKAGE")
    return ROOT / named if named else ROOT / "tests" / "packages" / "echo"


@pytest.fixture(scope="module")
def base(
    engine: dict[str, str], package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A base image with no registry: Debian by debootstrap, uv, and the wheels that are needed."""
    root = tmp_path_factory.mktemp("base") / "root"
    included = "--include=python3,libpython3.11-stdlib,libgomp1"
    run("debootstrap", "--variant=minbase", included, "bookworm", root, env=engine)
    shutil.copy(UV, root / "usr" / "local" / "bin" / "uv")
    wheels = root / "wheels"
    requirements: list[str | Path] = ["--requirement", package / "requirements.txt"]
    constraints: list[str | Path] = ["--constraint", ROOT / "constraints.txt"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    run(*pip, "--dest", wheels, *constraints, *requirements, env=engine)
    archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(
        ["docker", "import", "-", "callme-test-base"], stdin=archive.stdout, env=engine, check=True
    )
    assert archive.wait() == 0
    shutil.rmtree(root)
    yield "callme-test-base"
    subprocess.run(["docker", "rmi", "--force", "callme-test-base"], env=engine, check=False)


@contextlib.contextmanager
def container(engine: dict[str, str], image: str) -> Iterator[httpx.Client]:
    """Run the image on the host's network, on loopback, and wait until it is ready."""
    port = free_port()
    told = ["--env=HOST=127.0.0.1", f"--env=PORT={port}", "--env=WEIGHTS=demo"]
    options = ["--detach", "--init", "--network=host", *told]
    name = run("docker", "run", *options, image, env=engine).strip()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
            deadline = time.monotonic() + 300
            while _status(http) != "READY":
                assert time.monotonic() < deadline, run("docker", "logs", name, env=engine)
                time.sleep(0.2)
            yield http
    finally:
        subprocess.run(["docker", "rm", "--force", name], env=engine, check=False)


def _status(http: httpx.Client) -> str:
    try:
        return str(http.get("/health-check").json()["status"])
    except httpx.TransportError:
        return ""


class TestWithAnEngine:
    """Off by default: it needs root, Docker, debootstrap, and minutes."""

    pytestmark = needs_engine

    def test_an_image_is_built_and_predicts(
        self, engine: dict[str, str], base: str, package: Path
    ) -> None:
        """Offline but for Debian: the recipe finds uv, Python and wheels in the base."""
        tag = f"callme-test-{package.name}"
        arguments = ["--build-arg=UV_FIND_LINKS=/wheels", "--build-arg=UV_OFFLINE=1"]
        docker = ["--network=host", *arguments]
        recipe: list[str | Path] = [sys.executable, CONTAINER, package]
        options = ["--tag", tag, "--base", base, "--"]
        run(*recipe, *options, *docker, env={**engine, "DOCKER_BUILDKIT": "0"})
        try:
            with container(engine, tag) as http:
                schema = http.get("/openapi.json").json()["components"]["schemas"]
                assert schema["Input"]["properties"]
                inputs = example(package) if (package / "example.json").exists() else {}
                answer = http.post("/predictions", json={"input": inputs}).json()
                assert answer["status"] == "succeeded"
                assert answer["output"]
                refused = http.post("/predictions", json={"input": 3})
                assert refused.status_code == 422
        finally:
            subprocess.run(["docker", "rmi", "--force", tag], env=engine, check=False)
