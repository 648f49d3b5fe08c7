"""A disk that is full, read-only or locked: a clear error, and recovery without a restart."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import ROOT, Service, running_service
from tests.waiting import free_port, wait_until

ASYNC = {"Prefer": "respond-async"}
DISK_BYTES = 8 << 20


def mount(*options: str, on: Path) -> None:
    """Mount a file system in memory."""
    argv = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(on)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the mount program, for a disk that can be filled")
    if done.returncode != 0:
        pytest.skip("needs the right to mount a file system, for a disk that can be filled")


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES."""
    path.mkdir()
    mount(f"size={DISK_BYTES}", on=path)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def asked(service: Service, headers: dict[str, str] | None = None, **parts: Any) -> httpx.Response:
    """A prediction of the echo."""
    files = {k: v if isinstance(v, tuple) else (None, v) for k, v in parts.items()}
    return service.http.post("/echo", files=files, headers=headers)


def test_a_full_disk(echo_packages: Path, tmp_path: Path) -> None:
    """507 for what must be stored, nothing half-written left; what need not be stored goes on;
    with room again everything does."""
    with (
        small_disk(tmp_path / "disk") as disk,
        running_service(echo_packages, disk / "state") as service,
    ):
        assert asked(service, text="before").status_code == 200
        answer = asked(service, file=("big.bin", b"x" * (DISK_BYTES + 1)))
        assert answer.status_code == 507, answer.text
        assert answer.json()["error"]["code"] == "insufficient_storage"
        assert int(answer.headers["retry-after"]) > 0
        assert service.spooled() == []
        fill(disk / "filler")
        answer = asked(service, ASYNC, text="on disk before it is acknowledged")
        assert answer.status_code == 507, answer.text
        assert asked(service, text="in memory only").status_code == 200
        (disk / "filler").unlink()
        accepted = asked(service, ASYNC, text="after", file=("a.bin", b"x" * 1000))
        assert accepted.status_code == 202, accepted.text
        url = f"/predictions/{accepted.json()['id']}"
        wait_until(lambda: service.http.get(url).json()["status"] == "succeeded")
        wait_until(lambda: service.spooled() == [])


def fill(path: Path) -> None:
    """Leave not a byte."""
    with path.open("wb", buffering=0) as f:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while f.write(b"x" * size):
                    pass


def test_a_result_that_the_disk_does_not_take(echo_packages: Path, tmp_path: Path) -> None:
    """Accepted before the disk was full: it runs, is found, and is written when there is room."""
    with small_disk(tmp_path / "disk") as disk:
        with running_service(echo_packages, disk / "state") as service:
            assert asked(service, text="warm").status_code == 200
            made = asked(service, ASYNC, text="kept", delay_s="1").json()
            fill(disk / "filler")
            url = f"/predictions/{made['id']}"
            found = wait_until(
                lambda: (p := service.http.get(url).json())["status"] == "succeeded" and p
            )
            assert found["output"]["text"] == "kept"
            (disk / "filler").unlink()
            wait_until(lambda: stored_status(disk, made["id"]) == "succeeded")
        with running_service(echo_packages, disk / "state") as service:
            assert service.http.get(url).json()["output"]["text"] == "kept"


def stored_status(disk: Path, prediction_id: str) -> str:
    """What is on disk, read by somebody else."""
    uri = f"file:{disk / 'state' / 'predictions.sqlite3'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as c:
        row = c.execute("SELECT status FROM predictions WHERE id = ?", (prediction_id,)).fetchone()
        return str(row[0])


def test_a_read_only_spool(echo_packages: Path, tmp_path: Path) -> None:
    """507 for uploads while the rest goes on; what could not be deleted is, later."""
    spool = tmp_path / "state" / "spool"
    spool.mkdir(parents=True)
    mount("size=8m", on=spool)
    try:
        with running_service(echo_packages, tmp_path / "state") as service:
            made = asked(service, ASYNC, delay_s="1", file=("a.bin", b"abc")).json()
            wait_until(lambda: service.model("echo")["state"] == "busy")
            remount(spool, "ro")
            answer = asked(service, file=("b.bin", b"abc"))
            assert answer.status_code == 507, answer.text
            url = f"/predictions/{made['id']}"
            wait_until(lambda: service.http.get(url).json()["status"] == "succeeded")
            assert asked(service, text="without a file").status_code == 200
            assert len(service.spooled()) == 1
            remount(spool, "rw")
            answer = asked(service, file=("c.bin", b"abc"))
            assert answer.json()["file_bytes"] == 3
            wait_until(lambda: service.spooled() == [])
    finally:
        subprocess.run(["umount", "--lazy", str(spool)], check=True)


def remount(path: Path, how: str) -> None:
    """Let nobody write, or let them again."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(path)], check=True)


def test_a_locked_database(echo_packages: Path, tmp_path: Path) -> None:
    """Another program holds the database: 507 after the time that SQLite waits, and synchronous
    predictions go on; when it lets go, everything does, and nothing was lost."""
    with running_service(echo_packages, tmp_path / "state") as service:
        assert asked(service, text="warm").status_code == 200
        path = tmp_path / "state" / "predictions.sqlite3"
        running = asked(service, ASYNC, text="ends meanwhile", delay_s="0.5").json()
        wait_until(lambda: service.model("echo")["state"] == "busy")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answer = asked(service, ASYNC, text="cannot be recorded")
            assert answer.status_code == 507, answer.text
            assert "locked" in answer.json()["error"]["message"]
            assert asked(service, text="in memory only").status_code == 200
            other.execute("ROLLBACK")
        assert asked(service, ASYNC, text="after").status_code == 202
        url = f"/predictions/{running['id']}"
        wait_until(lambda: service.http.get(url).json()["status"] == "succeeded")
        assert "Traceback" not in service.log()


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user whom permissions bind, not root")
def test_a_spool_without_permission(echo_packages: Path, tmp_path: Path) -> None:
    """The same 507 where a folder's mode is what forbids it."""
    with running_service(echo_packages, tmp_path / "state") as service:
        spool = tmp_path / "state" / "spool"
        spool.chmod(0o500)
        assert asked(service, file=("a.bin", b"abc")).status_code == 507
        spool.chmod(0o700)
        assert asked(service, file=("a.bin", b"abc")).status_code == 200


@pytest.mark.parametrize("command", [["keys", "create", "web"], ["serve"]])
def test_commands_on_a_full_disk(tmp_path: Path, command: list[str]) -> None:
    """One sentence, which says where and why; and no half of a file is left."""
    with small_disk(tmp_path / "disk") as disk:
        (disk / "state").mkdir(mode=0o700)
        fill(disk / "filler")
        done = run_command(command, disk / "state")
        assert done.returncode != 0
        told = " ".join((done.stdout + done.stderr).split())
        assert "Traceback" not in told, told
        assert "Cannot " in told
        assert "state" in told
        assert "full" in told or "no space left" in told
        assert not list((disk / "state").glob(".*"))


def test_keys_where_the_state_folder_is_a_file(tmp_path: Path) -> None:
    """The same."""
    (tmp_path / "state").touch()
    done = run_command(["keys", "create", "web"], tmp_path / "state")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Cannot change keys: " in done.stderr


def run_command(command: list[str], state: Path) -> subprocess.CompletedProcess[str]:
    """`callme` with these arguments."""
    argv = [sys.executable, "-m", "router.cli", *command]
    env = {**os.environ, "CALLME_STATE_DIR": str(state), "CALLME_PORT": str(free_port())}
    env["CALLME_PACKAGES_DIR"] = str(state.parent)
    return subprocess.run(
        argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
    )
