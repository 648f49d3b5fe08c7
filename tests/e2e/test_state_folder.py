"""What is damaged or removed, before the start or while the router runs, is reported in a sentence
that names it, is put right where it can be, and stops nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import ROOT, Service, running_service
from tests.package_copies import copy_package
from tests.waiting import free_port, wait_until

ASYNC = {"Prefer": "respond-async"}


def asked(service: Service, headers: dict[str, str] | None = None, **parts: Any) -> httpx.Response:
    """A prediction of the echo."""
    files = {k: v if isinstance(v, tuple) else (None, v) for k, v in parts.items()}
    return service.http.post("/echo", files=files, headers=headers)


def problems(service: Service) -> list[str]:
    """What /ready says is wrong."""
    answer = service.http.get("/ready")
    said: list[str] = answer.json().get("problems", [])
    assert answer.status_code == (503 if said else 200), answer.text
    return said


def ended(service: Service, accepted: httpx.Response) -> dict[str, Any]:
    """The prediction at its end."""
    assert accepted.status_code == 202, accepted.text
    url = accepted.headers["location"]
    done: dict[str, Any] = wait_until(
        lambda: (p := service.http.get(url).json())["completed_at"] and p
    )
    return done


def test_removed_while_it_runs(echo_packages: Path, tmp_path: Path) -> None:
    """Folders are made again, by who needs them or within seconds; a database that is gone is
    begun again; every answer in between is right."""
    state = tmp_path / "state"
    with running_service(echo_packages, state) as service:
        made = asked(service, ASYNC, text="before", delay_s="3")
        wait_until(lambda: service.model("echo")["state"] == "busy")
        for folder in ("spool", "tmp"):
            shutil.rmtree(state / folder)
        done = ended(service, made)
        assert done["status"] == "succeeded", (done, service.log())
        answer = asked(service, file=("a.bin", b"abc"))
        assert (answer.status_code, answer.json()["file_bytes"]) == (200, 3)
        for path in state.glob("predictions.sqlite3*"):
            path.unlink()
        wait_until(lambda: not problems(service) and (state / "predictions.sqlite3").exists())
        kept = ended(service, asked(service, ASYNC, text="kept"))
        shutil.rmtree(state)
        wait_until(lambda: not problems(service) and (state / "predictions.sqlite3").exists())
        assert asked(service, text="after", file=("a.bin", b"abc")).status_code == 200
        assert ended(service, asked(service, ASYNC, text="kept"))["output"]["text"] == "kept"
        assert service.http.get(f"/predictions/{kept['id']}").status_code == 404
        assert "Traceback" not in service.log()


def test_replaced_by_something_else_while_it_runs(echo_packages: Path, tmp_path: Path) -> None:
    """A folder in the database's place, a file in the spool's: /ready says it, what must be
    stored is 507, the rest goes on, and so does all when it is back."""
    state = tmp_path / "state"
    database, spool = state / "predictions.sqlite3", state / "spool"
    with running_service(echo_packages, state) as service:
        assert asked(service, text="warm").status_code == 200
        database.unlink()
        database.mkdir()
        shutil.rmtree(spool)
        spool.write_text("not a folder")
        wait_until(lambda: len(problems(service)) == 2)
        said = " ".join(problems(service))
        assert "predictions.sqlite3" in said
        assert "'spool'" in said
        assert str(tmp_path) not in said
        assert asked(service, ASYNC, text="x").json()["error"]["code"] == "insufficient_storage"
        refused = asked(service, file=("a.bin", b"abc"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            507,
            "insufficient_storage",
        )
        assert asked(service, text="in memory only").status_code == 200
        database.rmdir()
        spool.unlink()
        wait_until(lambda: not problems(service))
        assert ended(service, asked(service, ASYNC, text="again"))["status"] == "succeeded"
        assert "Traceback" not in service.log()


DEEP = "a: " + "[" * 20_000
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)
MERGE_BOMB = "\n".join(
    ["a0: &a0 {k: v}"]
    + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
)


def test_what_is_damaged_at_the_start(tmp_path: Path) -> None:
    """Packages that cannot be read, folders that are not ours, a secret that is none: the router
    starts, says which, and serves the rest."""
    packages, state = tmp_path / "packages", tmp_path / "state"
    names = ("echo", "deep", "bomb", "merge", "folder", "example", "exits")
    for name in names:
        copy_package("echo", packages / name)
    for name, text in (("deep", DEEP), ("bomb", BOMB), ("merge", MERGE_BOMB)):
        (packages / name / "cog.yaml").write_text(text)
    (packages / "folder" / "cog.yaml").unlink()
    (packages / "folder" / "cog.yaml").mkdir()
    (packages / "example" / "example.json").write_text("[" * 100_000)
    (packages / "exits" / "run.py").write_text("import sys\nsys.exit(0)\n")
    for folder in ("spool", "outputs"):
        (state / folder / "lost+found").mkdir(parents=True)
    (state / "webhook_secret").write_bytes(b"\xff\xfe damaged")
    with running_service(packages, state) as service:
        assert asked(service, text="x").status_code == 200
        answer = service.http.post("/exits", files={"text": (None, "x")})
        assert answer.status_code == 503, answer.text
        assert "cannot be read" in answer.json()["error"]["message"]
        assert service.http.post("/example", files={"text": (None, "x")}).status_code == 200
        log = service.log()
        for name in ("deep", "bomb", "merge", "folder"):
            assert service.http.post(f"/{name}", files={}).status_code in (404, 405, 415)
            assert f'"package":"{name}"' in log or f'"package": "{name}"' in log, log
        assert "webhook_secret" in log
        assert "Traceback" not in log
        assert (state / "spool" / "lost+found").is_dir()
        assert [p.name for p in state.glob("webhook_secret.damaged-*")]


def damage_a_page(path: Path) -> None:
    """A database whose header is right and one of whose pages is not."""
    with closing(sqlite3.connect(path)) as c:
        c.execute("CREATE TABLE t (x TEXT)")
        c.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 2000)
        c.commit()
    content = bytearray(path.read_bytes())
    page = len(content) // 2 // 4096 * 4096
    content[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    """Where a file should be."""
    path.mkdir()


STARTS: list[tuple[str, Callable[[Path], None]]] = [
    ("predictions.sqlite3", damage_a_page),
    ("predictions.sqlite3", a_folder),
    ("spool", lambda path: path.touch()),
    ("lock", a_folder),
    ("local_key", a_folder),
]


@pytest.mark.parametrize(("name", "damage"), STARTS)
def test_what_it_cannot_start_with(
    echo_packages: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """One sentence, which names the file."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    damage(state / name)
    said = failed_start(echo_packages, state)
    assert name in said


def test_a_state_folder_that_is_a_file(echo_packages: Path, tmp_path: Path) -> None:
    """The same for the folder itself."""
    (tmp_path / "state").touch()
    assert "state" in failed_start(echo_packages, tmp_path / "state")


def failed_start(packages: Path, state: Path) -> str:
    """What a router says that does not start."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "serve", "--port", str(free_port())],
        cwd=ROOT,
        env={**clean, "CALLME_PACKAGES_DIR": str(packages), "CALLME_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Cannot start: " in said
    assert "Traceback" not in said, said
    return said[said.index("Cannot start: ") :]
