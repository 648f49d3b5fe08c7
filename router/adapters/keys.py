"""The keys of the state folder: made, listed and revoked while a router runs, or none does.

`keys.json` holds verifiers, not keys (`router.domain.keys`), is readable by this user only, and is
replaced in one step. `local_key` is the running router's own, for `callme status` and its like: it
opens only for this machine, and only as long as that router runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
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

from router.domain.keys import Accepted, Key, verifier_of

log = logging.getLogger(__name__)

FILE_NAME = "keys.json"
LOCAL_NAME = "local_key"
KEY_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
PREFIX = "ck_"
SECRET_BYTES = 32
LOCAL_ID = "local"


class KeyFileError(Exception):
    """The keys cannot be read or changed; the message is for a person."""


def is_key_id(text: str) -> str:
    """A key's name, as it may stand in logs, headers and commands. Raises ValueError."""
    if not KEY_ID.fullmatch(text) or text == LOCAL_ID:
        raise ValueError(
            "its name must be 1 to 32 lower-case letters, digits, '-' and '_', and not "
            f"'{LOCAL_ID}', got '{text}'"
        )
    return text


# People edit the file: a limit that is none must not be taken for no limit.
STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
Limit = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, config=STRICT)
class StoredKey:
    """One entry of keys.json. `verifier`: 64 hex digits; `created_at`: Unix time, s; None as a
    limit is the router's own. `holder`: whose it is, None for the key's own name. Raises
    pydantic.ValidationError."""

    id: Annotated[str, AfterValidator(is_key_id)]
    verifier: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    requests_per_minute: Limit | None = None
    concurrent_requests: Limit | None = None
    holder: Annotated[str, AfterValidator(is_key_id)] | None = None
    admin: bool = False


class KeyDocument(BaseModel):
    """keys.json."""

    model_config = STRICT
    version: Literal[1]
    keys: list[StoredKey]


class KeyFile:
    """keys.json of one state folder."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE_NAME

    def stamp(self) -> tuple[int, int, int] | None:
        """What changes with the file's content; None where there is no file, its reason where
        it cannot be seen: then it cannot be read either."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return error.errno or 0, 0, 0
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> list[StoredKey]:
        """Every key, oldest first. Raises KeyFileError."""
        try:
            return KeyDocument.model_validate_json(self._path.read_bytes()).keys
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            raise KeyFileError(
                f"Cannot read keys: {FILE_NAME} is damaged ({_reason(error)})"
            ) from error

    def create(
        self,
        key_id: str,
        requests_per_minute: int | None = None,
        concurrent_requests: int | None = None,
        *,
        holder: str | None = None,
        admin: bool = False,
    ) -> str:
        """Make a key and return it: the only time it is seen. `holder`: whose it is, default:
        its own name; `admin`: it sees what every holder has made. Raises KeyFileError."""
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
        """Forget a key; a running router refuses it from its next request on. Raises
        KeyFileError when there is no such key."""
        with self._changing() as keys:
            kept = [key for key in keys if key.id != key_id]
            if len(kept) == len(keys):
                raise KeyFileError(f"Cannot revoke '{key_id}': there is no such key")
            keys[:] = kept

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[StoredKey]]:
        """The list to change; written back whole unless an error is raised."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._path.parent / f"{FILE_NAME}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            document = {"version": 1, "keys": [asdict(key) for key in keys]}
            write_private(self._path, orjson.dumps(document, option=orjson.OPT_INDENT_2))


class Keyring:
    """Fulfils `router.domain.keys.KeySource`: configured keys, those of keys.json, and the
    router's own local one. keys.json is read again when it has changed."""

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
        self._stamp: tuple[int, int, int] | None = None
        self._stored: tuple[Key, ...] = ()
        self._damaged = False
        self._combine()

    def open(self) -> None:
        """Begin: give this machine's own programs their key. Raises KeyFileError."""
        self._file.read()
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        self._local = (Key(LOCAL_ID, verifier_of(secret), local=True, is_admin=True),)
        self._combine()
        write_private(self._local_path, secret.encode())

    def close(self) -> None:
        """The local key opens nothing any more."""
        self._local = ()
        self._combine()
        self._local_path.unlink(missing_ok=True)

    def current(self) -> Accepted:
        """The keys that open now. A damaged file opens nothing to anybody."""
        stamp = self._file.stamp()  # 8 µs; revoked must mean revoked
        if stamp != self._stamp:
            self._stamp = stamp
            self._read()
        return self._accepted

    def _read(self) -> None:
        try:
            self._stored = tuple(self._key(stored) for stored in self._file.read())
            self._damaged = False
        except KeyFileError as error:
            log.error("no stored key is accepted", extra={"reason": str(error)})
            self._stored, self._damaged = (), True
        self._combine()

    def _combine(self) -> None:
        given_out = (*self._configured, *self._stored)
        self._accepted = Accepted((*given_out, *self._local), bool(given_out) or self._damaged)

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
    """The local key of the router that runs on this state folder, if one does."""
    try:
        return (state / LOCAL_NAME).read_text()
    except OSError:
        return None


def write_private(path: Path, content: bytes) -> None:
    """Replace the file in one step; nobody else can read it, at no moment."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _reason(error: OSError | ValidationError) -> str:
    """The first thing wrong and where; never what stands there."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, first["loc"]))
    return message if first["type"] == "value_error" else f"{where}: {message}"
