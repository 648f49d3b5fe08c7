"""The keys of the state folder: made, listed and revoked while a router runs, or none does.

`keys.json` holds verifiers, not keys (`router.keys.key`), is readable by this user only, and is
replaced in one step. `local_key` is the running router's own, for `callme status` and its like: it
opens only for this machine, and only as long as that router runs.

Once there has been a key, no key means nobody: `had_keys` says that there has been one, also where
keys.json is gone, and only `open_to_this_machine` in keys.json says otherwise.
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
MARKER_TEXT = b"""There has been a key for this box, so without one nobody is served.
To change that: callme keys open-to-this-machine
"""
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
    open_to_this_machine: bool = False


Stamp = tuple[int, ...]
UNREAD: Stamp = ()


class KeyFile:
    """keys.json of one state folder."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE_NAME
        self._marker = state / MARKER_NAME

    def stamp(self) -> Stamp | None:
        """What changes with the file's content and rights; None where there is no file, the
        reason where it cannot be seen: then it cannot be read either."""
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
        """Every key, oldest first. Raises KeyFileError."""
        return self._load().keys

    def is_closed(self) -> bool:
        """Whether no key means nobody: there is or has been a key, and nobody has said since
        that this machine's programs need none. Raises KeyFileError."""
        document = self._load()
        if self.stamp() is None:
            return self._marker.exists()
        return bool(document.keys) or not document.open_to_this_machine

    def close(self) -> None:
        """There is a key, of this file or another: from now on no key means nobody. Raises
        KeyFileError, OSError."""
        if not self._marker.exists() or not self.is_closed():
            with self._changing():
                pass

    def open_to_this_machine(self) -> None:
        """Serve this machine's own programs without a key. Raises KeyFileError while there are
        keys: a box for others is not opened by the way."""
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
        """The list to change; written back whole unless an error is raised."""
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
    """Fulfils `router.keys.key.KeySource`: configured keys, those of keys.json, and the
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
        self._stamp: Stamp | None = UNREAD
        self._stored: tuple[Key, ...] = ()
        self._closed = False
        self._combine()

    def open(self) -> None:
        """Begin: give this machine's own programs their key. Raises KeyFileError."""
        if self._file.read() or self._configured:
            self._file.close()
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
        """The keys that open now. A file that is damaged, or that others may write, opens
        nothing to anybody."""
        stamp = self._file.stamp()  # 8 µs; revoked must mean revoked
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
    """The local key of the router that runs on this state folder, if one does."""
    try:
        return (state / LOCAL_NAME).read_text()
    except OSError:
        return None


def _reason(error: OSError | ValidationError) -> str:
    """The first thing wrong and where; never what stands there."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, first["loc"]))
    return message if first["type"] == "value_error" else f"{where}: {message}"
