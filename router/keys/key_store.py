"""The keys in the state folder. They can be made, listed and revoked while a router runs or not.

`keys.json` has verifiers, not keys (`router.keys.key`). Only this user can read it, and it is
replaced in one step. `local_key` is the running router's own key, for `callme status` and similar
commands. It is accepted only from this machine, and only while that router runs.

Once there has been a key, a request without one is refused, even when no key is left. `had_keys`
records that there has been one, even when keys.json is gone. Only `open_to_this_machine` in
keys.json allows such requests again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from router.keys.key import Accepted, Key, verifier_of
from router.storage.private_files import (
    NotPrivateError,
    make_state_folder,
    require_private,
    write_private,
)

log = logging.getLogger(__name__)

FILE_NAME = "keys.json"
LOCAL_NAME = "local_key"
MARKER_NAME = "had_keys"
MARKER_TEXT = b"""There has been a key for this router, so without one nobody is served.
To change that: callme keys open-to-this-machine
"""
KEY_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
PREFIX = "ck_"
SECRET_BYTES = 32
LOCAL_ID = "local"


class KeyFileError(Exception):
    """The keys cannot be read or changed. The message is for a person."""


def is_key_id(text: str) -> str:
    """Return a key's name if it can be used in logs, headers and commands.

    Raises ValueError when it cannot.
    """
    if not KEY_ID.fullmatch(text) or text == LOCAL_ID:
        raise ValueError(
            "its name must be 1 to 32 lower-case letters, digits, '-' and '_', and not "
            f"'{LOCAL_ID}', got '{text}'"
        )
    return text


# People edit the file. A limit that cannot be read must raise, and not count as no limit.
STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
Limit = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, config=STRICT)
class StoredKey:
    """One entry of keys.json.

    `verifier`: 64 hex digits. `created_at`: Unix time in seconds. A limit of None means the
    router's own limit. `holder`: the key's owner, None for the key's own name. Raises
    pydantic.ValidationError when a value is not valid.
    """

    id: Annotated[str, AfterValidator(is_key_id)]
    verifier: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    requests_per_minute: Limit | None = None
    concurrent_requests: Limit | None = None
    holder: Annotated[str, AfterValidator(is_key_id)] | None = None
    admin: bool = False


class KeyDocument(BaseModel):
    """The content of keys.json."""

    model_config = STRICT
    version: Literal[1]
    keys: list[StoredKey]
    open_to_this_machine: bool = False


Stamp = tuple[int, ...]
UNREAD: Stamp = ()


class KeyFile:
    """The keys.json of one state folder."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE_NAME
        self._marker = state / MARKER_NAME

    def stamp(self) -> Stamp | None:
        """Return a value that changes when the file's content or permissions change.

        None when there is no file. The error number when the file cannot be seen; then it cannot
        be read either.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return (error.errno or 0,)
        return (
            *(found.st_mtime_ns, found.st_ino, found.st_size),
            *(found.st_mode, found.st_uid),
        )

    def read(self) -> list[StoredKey]:
        """Return every key, oldest first. Raises KeyFileError when they cannot be read."""
        return self._load().keys

    def is_closed(self) -> bool:
        """Whether a request without a key is refused even when no key is left.

        That is so once there has been a key, until the operator opens the router to this machine.
        Raises KeyFileError when keys.json cannot be read.
        """
        document = self._load()
        if self.stamp() is None:
            return self._marker.exists()
        return bool(document.keys) or not document.open_to_this_machine

    def close(self) -> None:
        """Record that there is a key, in this file or elsewhere.

        From now on a request without a key is refused. Raises KeyFileError when keys.json cannot
        be read or changed, and OSError when the state folder cannot be read.
        """
        if not self._marker.exists() or not self.is_closed():
            with self._changing():
                pass

    def open_to_this_machine(self) -> None:
        """Serve programs on this machine without a key.

        Raises KeyFileError when there are keys, because a router that serves others must not be
        opened by mistake, and when keys.json cannot be read or changed.
        """
        with self._changing(open_to_this_machine=True) as keys:
            if keys:
                names = ", ".join(key.id for key in keys)
                raise KeyFileError(f"Cannot open: there are keys ({names}); revoke them first")

    def create(
        self,
        key_id: str,
        requests_per_minute: int | None = None,
        concurrent_requests: int | None = None,
        *,
        holder: str | None = None,
        admin: bool = False,
    ) -> str:
        """Make a key and return it. It cannot be shown again.

        `holder`: its owner, by default its own name. `admin`: it sees what every holder has made.
        Raises KeyFileError when the name or a limit is not valid, when there is a key of that
        name, and when keys.json cannot be read or changed.
        """
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        verifier = verifier_of(secret).hex()
        try:
            limits = (requests_per_minute, concurrent_requests)
            new = StoredKey(key_id, verifier, time.time(), *limits, holder=holder, admin=admin)
        except ValidationError as error:
            raise KeyFileError(f"Cannot create the key: {_reason(error)}") from error
        with self._changing() as keys:
            if any(key.id == key_id for key in keys):
                raise KeyFileError(f"Cannot create the key: there is one named '{key_id}'")
            keys.append(new)
        return secret

    def revoke(self, key_id: str) -> None:
        """Delete a key. A running router refuses it from its next request on.

        Raises KeyFileError when there is no such key, and when keys.json cannot be read or
        changed.
        """
        with self._changing() as keys:
            kept = [key for key in keys if key.id != key_id]
            if len(kept) == len(keys):
                raise KeyFileError(f"Cannot revoke '{key_id}': there is no such key")
            keys[:] = kept

    def _load(self) -> KeyDocument:
        try:
            require_private(self._path.parent)
            require_private(self._path)
            return KeyDocument.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return KeyDocument(version=1, keys=[])
        except NotPrivateError as error:
            raise KeyFileError(f"Cannot read keys: {error}") from error
        except (OSError, ValidationError) as error:
            raise KeyFileError(
                f"Cannot read keys: {FILE_NAME} is damaged ({_reason(error)})"
            ) from error

    @contextlib.contextmanager
    def _changing(self, *, open_to_this_machine: bool = False) -> Iterator[list[StoredKey]]:
        """Yield the list to change. It is written back as a whole unless an error is raised."""
        try:
            make_state_folder(self._path.parent)
            with (self._path.parent / f"{FILE_NAME}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = self.read()
                yield keys
                if not self._marker.exists():
                    write_private(self._marker, MARKER_TEXT)
                document = {
                    "version": 1,
                    "keys": [asdict(key) for key in keys],
                    "open_to_this_machine": open_to_this_machine,
                }
                write_private(self._path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
        except NotPrivateError as error:
            raise KeyFileError(f"Cannot change keys: {error}") from error
        except OSError as error:
            where = f"{FILE_NAME} in {self._path.parent}"
            raise KeyFileError(
                f"Cannot change keys: {where} cannot be written ({_reason(error).lower()})"
            ) from error


class Keyring:
    """Implements `router.keys.key.KeySource`.

    It has the configured keys, those of keys.json, and the router's own local key. keys.json is
    read again when it has changed.
    """

    def __init__(
        self,
        state: Path,
        configured: Sequence[Key],
        requests_per_minute: int | None = None,
        concurrent_requests: int | None = None,
    ) -> None:
        self._file = KeyFile(state)
        self._configured = tuple(configured)
        self._limits = (requests_per_minute, concurrent_requests)
        self._local_path = state / LOCAL_NAME
        self._local: tuple[Key, ...] = ()
        self._stamp: Stamp | None = UNREAD
        self._stored: tuple[Key, ...] = ()
        self._closed = False
        self._combine()

    def open(self) -> None:
        """Make the local key and write it for programs on this machine.

        Raises KeyFileError when keys.json cannot be read or changed, and OSError when the local
        key cannot be written.
        """
        if self._file.read() or self._configured:
            self._file.close()
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        self._local = (Key(LOCAL_ID, verifier_of(secret), local=True, is_admin=True),)
        self._combine()
        write_private(self._local_path, secret.encode())

    def close(self) -> None:
        """Stop accepting the local key, and delete its file."""
        self._local = ()
        self._combine()
        self._local_path.unlink(missing_ok=True)

    def current(self) -> Accepted:
        """Return the keys that are accepted now.

        When keys.json is damaged, or other users may write to it, none of its keys is
        accepted, and a key is required.
        """
        stamp = self._file.stamp()  # 8 µs per request, so that a revoked key is refused at once
        if stamp != self._stamp:
            self._stamp = stamp
            self._read()
        return self._accepted

    def _read(self) -> None:
        try:
            self._stored = tuple(self._key(stored) for stored in self._file.read())
            self._closed = self._file.is_closed()
        except KeyFileError as error:
            log.error("no stored key is accepted", extra={"reason": str(error)})
            self._stored, self._closed = (), True
        self._combine()

    def _combine(self) -> None:
        given_out = (*self._configured, *self._stored)
        self._accepted = Accepted((*given_out, *self._local), bool(given_out) or self._closed)

    def _key(self, stored: StoredKey) -> Key:
        per_minute, concurrent = self._limits
        return Key(
            stored.id,
            bytes.fromhex(stored.verifier),
            per_minute if stored.requests_per_minute is None else stored.requests_per_minute,
            concurrent if stored.concurrent_requests is None else stored.concurrent_requests,
            holder=stored.holder or stored.id,
            is_admin=stored.admin,
        )


def read_local_key(state: Path) -> str | None:
    """Return the local key of the router that runs on this state folder, None without one."""
    try:
        return (state / LOCAL_NAME).read_text()
    except OSError:
        return None


def _reason(error: OSError | ValidationError) -> str:
    """Return the first thing that is wrong and where it is, but never the value itself."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, first["loc"]))
    return message if first["type"] == "value_error" else f"{where}: {message}"
