"""Opens the state folder: locks it for one router, and deletes the temporary files of an earlier
one."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from router.models.process_group import end_left_behind
from router.predictions.webhook_sender import WEBHOOK_FILE, load_secret
from router.storage.private_files import NotPrivateError, make_state_folder
from router.storage.sealed_store import BOX_KEY_FILE, BoxKey, BoxKeyError, SealedStore, load_box_key
from router.storage.spool import Spool
from router.storage.sqlite_store import SqliteStore
from router.storage.state_folder import StateFolder
from router.storage.usage_store import USAGE_FILE, UsageStore

log = logging.getLogger(__name__)


class StateInUseError(RuntimeError):
    """Another router uses this state folder."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The contents of the state folder."""

    database: SqliteStore
    store: SealedStore
    spool: Spool
    outputs: Spool  # output files, which are kept as long as their predictions
    secret: str
    box_key: BoxKey
    watch: StateFolder
    usage: UsageStore


def open_disk(state: Path) -> Disk:
    """Open all of it, and make what does not exist. Raises StoreUnusableError when the database
    cannot be opened, and RuntimeError when another file cannot be used."""
    with private_errors():
        secret = load_secret(state / WEBHOOK_FILE)
        box_key = load_box_key(state / BOX_KEY_FILE)
        database = SqliteStore(state / "predictions.sqlite3")
        store = SealedStore(database, state / "sealed", box_key)
        spool, outputs = Spool(state / "spool"), Spool(state / "outputs")
    names = ("spool", "outputs", "sealed", "tmp", "cache")
    watch = StateFolder([state / name for name in names if (state / name).is_dir()], database)
    usage = UsageStore(state / USAGE_FILE)
    return Disk(database, store, spool, outputs, secret, box_key, watch, usage)


def clear_temp(state: Path) -> None:
    """End the model processes that an earlier router left running, and make its temporary folder
    again, empty."""
    if not end_left_behind(state / "spool"):
        log.error("Cannot end the model processes that an earlier router left running")
    shutil.rmtree(state / "tmp", ignore_errors=True)
    for name in ("tmp", "cache"):
        (state / name).mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def private_errors() -> Iterator[None]:
    """Raises RuntimeError, with a message for a person, in place of an error about a file."""
    try:
        yield
    except (NotPrivateError, BoxKeyError) as error:
        raise RuntimeError(f"Cannot start: {error}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RuntimeError(f"Cannot start: {error.filename or 'state folder'}: {reason}") from error


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Lock the state folder for this process. Raises StateInUseError when another router holds
    it."""
    with private_errors():
        make_state_folder(state)
        # Unbuffered, as on a full disk a buffer would fail a second time when it is closed.
        lock = (state / "lock").open("ab+", buffering=0)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateInUseError(
                "Cannot start: another router uses this state folder (CALLME_STATE_DIR)"
            ) from error
        with private_errors():
            lock.seek(0)
            lock.truncate()
            lock.write(f"{os.getpid()}\n".encode())
        yield
