"""A Postgres of the tests' own, made like a Supabase project, with this project's migrations.

One cluster serves a run of the tests; each test gets a copy of a database that is made once. A test
is skipped, and says what is missing, where Postgres 15 or newer or pgTAP is not installed.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUPABASE = ROOT / "supabase"
PLATFORM = Path(__file__).with_name("supabase_platform.sql")
DEBIAN = "Debian has it: apt-get install postgresql-15 postgresql-15-pgtap postgresql-15-cron"
SUPERUSER = "supabase_admin"  # as on the platform, where `postgres` is none
COUNTER = itertools.count()
MEMORY = Path("/dev/shm")  # noqa: S108
SIZE_BYTES = 512 << 20  # five databases, with room


@dataclass(frozen=True)
class Database:
    """One database. `port` is on 127.0.0.1; every role may connect without a password."""

    name: str
    port: int
    programs: Path

    def url(self, role: str = "postgres") -> str:
        """The address for a client."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{self.name}"

    def run(self, sql: str, role: str = SUPERUSER) -> str:
        """Run SQL; one line a row. Raises AssertionError with what psql said when it fails."""
        return self._psql(["-f", "-"], role, sql)

    def file(self, path: Path, role: str = "postgres") -> str:
        """Run a file in one transaction, as `supabase db push` runs a migration."""
        return self._psql(["-1", "-f", str(path)], role)

    def script(self, path: Path, role: str = SUPERUSER) -> str:
        """Run a file that has its own transactions."""
        return self._psql(["-f", str(path)], role)

    def migrate(self) -> None:
        """Run all migrations in their order."""
        for path in migrations():
            self.file(path)

    def clear(self) -> None:
        """Delete all rows: as after the migrations, with nobody in it. Quicker than a copy."""
        self.run(
            "truncate callme.predictions, callme.quotas, callme.usage, callme.trash, auth.users, "
            "storage.objects, realtime.messages, net.http_request_queue cascade; "
            "delete from callme.settings; insert into callme.settings default values"
        )

    def _psql(self, arguments: list[str], role: str, sql: str = "") -> str:
        command = [
            str(self.programs / "psql"),
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url(role),
        ]
        done = subprocess.run(
            [*command, *arguments],
            input=sql,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def migrations() -> list[Path]:
    """The migrations in their order."""
    return sorted((SUPABASE / "migrations").glob("*.sql"))


def find_programs() -> Path:
    """The folder with Postgres' programs, of the newest version. Skips the test without one."""
    beside = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    found = debian[-1] if debian else Path(beside) if beside else None
    if found is None:
        pytest.skip(f"needs Postgres 15 or newer. {DEBIAN}")
    if not _shared("pgtap", found):
        pytest.skip(f"needs pgTAP, an extension of Postgres. {DEBIAN}")
    return found.parent


def _version(initdb: Path) -> int:
    return int(initdb.parents[1].name.split(".")[0])


def _shared(extension: str, initdb: Path) -> bool:
    """Whether the server beside `initdb` has this extension."""
    config = initdb.with_name("pg_config")
    done = subprocess.run([config, "--sharedir"], capture_output=True, text=True, check=True)
    return (Path(done.stdout.strip()) / "extension" / f"{extension}.control").exists()


def has_cron(database: Database) -> bool:
    """Whether pg_cron is installed."""
    return _shared("pg_cron", database.programs / "initdb")


@contextmanager
def running_cluster() -> Iterator[Database]:
    """A cluster with the database `base`: a Supabase project with all migrations, and nothing in
    it. Nothing of it is left on disk."""
    programs = find_programs()
    # In memory where that is possible: a cluster is over a thousand files.
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > SIZE_BYTES
    place = MEMORY if has_room else Path("/tmp")  # noqa: S108 - a socket's path must be short
    with tempfile.TemporaryDirectory(prefix="callme-pg-", dir=place) as made:
        folder = Path(made)
        prefix = _as_other_user(folder)
        data = folder / "data"
        initdb: list[str | Path] = [programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust"]
        _check([*prefix, *initdb, "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"])
        cron = _shared("pg_cron", programs / "initdb")
        port = free_port()
        options = (
            f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off "
            "-c synchronous_commit=off -c full_page_writes=off -c max_connections=150"
            + (" -c shared_preload_libraries=pg_cron -c cron.database_name=clock" if cron else "")
        )
        control: list[str | Path] = [*prefix, programs / "pg_ctl", "-D", data]
        _check([*control, "-w", "-l", folder / "log", "-o", options, "start"])
        try:
            top = Database("template1", port, programs)
            top.run("create database base")
            base = Database("base", port, programs)
            base.script(PLATFORM)
            base.run("create extension pgtap")
            base.migrate()
            yield base
        finally:
            _check([*control, "-m", "immediate", "stop"])


@contextmanager
def copy_of(base: Database, name: str = "") -> Iterator[Database]:
    """A database with the same content, for one test."""
    name = name or f"test_{next(COUNTER)}"
    top = Database("template1", base.port, base.programs)
    top.run(f"create database {name} template {base.name}")
    top.run(f"grant create on database {name} to postgres")
    try:
        yield Database(name, base.port, base.programs)
    finally:
        top.run(f"drop database {name} with (force)")


def _as_other_user(folder: Path) -> list[str]:
    """Postgres refuses to run as root: what to put before its commands. Skips the test when root
    cannot become another user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    try:
        user = next(pwd.getpwnam(n) for n in ("postgres", "nobody") if _exists(n))
    except StopIteration:
        pytest.skip("needs a user other than root for Postgres: `postgres` or `nobody`")
    if setpriv is None:
        pytest.skip("needs `setpriv` (util-linux): Postgres does not run as root")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _check(command: Sequence[str | Path]) -> None:
    # Files, not pipes: the server that pg_ctl starts would hold a pipe open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            command, stdout=said, stderr=subprocess.STDOUT, cwd="/", timeout=60, check=False
        )
        said.seek(0)
        assert done.returncode == 0, said.read()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
