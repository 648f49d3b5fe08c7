"""What travels to the replicas of a Ray cluster, and how a replica's server ends. Needs no Ray."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.packaging.isolated import ROOT, UNCOPIED, cog_image
from tests.waiting import wait_until

ray_source = importlib.import_module("ray_source")  # tests.packaging.isolated has added deploy/
# Starts a coglet that is tied to this process, prints its address, and waits to be killed.
HOLDER = """
import sys, time
from pathlib import Path
from cog_server import CogServer
server = CogServer(Path(sys.argv[1]), "run.py:Runner", concurrency=1, setup_timeout_s=120,
                   tied=True)
server.start()
print(server.health()["status"], flush=True)
time.sleep(600)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the echo package, with what a node has of its own."""
    folder = tmp_path / "echo"
    ignored = shutil.ignore_patterns(*UNCOPIED)
    shutil.copytree(ROOT / "tests" / "packages" / "echo", folder, ignore=ignored)
    (folder / "weights").mkdir()
    (folder / "weights" / "large.bin").write_bytes(bytes(1000))
    (folder / ".dockerignore").write_text("/README.md\n/samples\n**/*.log\n")
    return folder


def test_the_digest_is_that_of_the_source(package: Path) -> None:
    """Another byte of the source is another digest; weights, caches and what the image leaves out
    are not."""
    before = ray_source.digest(ray_source.read_source(package))
    (package / "weights" / "large.bin").write_bytes(b"others")
    (package / "README.md").write_text("read me")
    (package / "samples").mkdir()
    (package / "samples" / "a.wav").write_bytes(b"a")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "run.pyc").write_bytes(b"x")
    assert ray_source.digest(ray_source.read_source(package)) == before
    with (package / "run.py").open("a") as source:
        source.write("\n")
    assert ray_source.digest(ray_source.read_source(package)) != before


def test_a_replica_has_the_source_and_the_nodes_weights(package: Path, tmp_path: Path) -> None:
    """The files byte for byte, and links to what the node has."""
    files = ray_source.read_source(package)
    packed = ray_source.pack({**files, ".cog/openapi_schema.json": b"{}"})
    assert packed == ray_source.pack({".cog/openapi_schema.json": b"{}", **files})
    replica = tmp_path / "replica"
    ray_source.unpack(packed, replica, package)
    assert (replica / "run.py").read_bytes() == (package / "run.py").read_bytes()
    assert (replica / "weights" / "large.bin").stat().st_size == 1000
    assert (replica / ".cog" / "openapi_schema.json").read_bytes() == b"{}"
    ray_source.unpack(packed, tmp_path / "bare", tmp_path / "not there")
    assert not (tmp_path / "bare" / "weights").exists()


def test_a_large_source_is_refused(package: Path) -> None:
    """It would be kept by Serve's controller."""
    (package / "model.bin").write_bytes(bytes(ray_source.MAX_SOURCE_BYTES))
    with pytest.raises(cog_image.CannotDeployError, match="over 8 MiB"):
        ray_source.read_source(package)


def test_the_schema_comes_from_the_runner(package: Path) -> None:
    """And the reason is given when it cannot be read."""
    schema = ray_source.read_schema(package, "run.py:Runner")
    assert "number" in schema["components"]["schemas"]["Input"]["properties"]
    (package / "run.py").write_text("import not_there\n")
    with pytest.raises(cog_image.CannotDeployError, match="not_there"):
        ray_source.read_schema(package, "run.py:Runner")


@pytest.mark.slow
def test_a_tied_server_ends_with_its_process(package: Path) -> None:
    """However that ends: kill -9 of the one leaves nothing of the other, also when the other was
    asked to end and does not."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(package)], cwd=ROOT / "deploy", stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"READY\n"
    started = psutil.Process(holder.pid).children(recursive=True)
    assert any("cog.server.http" in p.cmdline() for p in started)
    server = next(p for p in started if "cog.server.http" in p.cmdline())
    server.suspend()
    os.killpg(os.getpgid(server.pid), signal.SIGTERM)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    wait_until(lambda: not [p for p in started if p.is_running() and p.status() != "zombie"])
