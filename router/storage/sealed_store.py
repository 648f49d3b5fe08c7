"""Secret inputs on disk: one sealed (encrypted) file per prediction, deleted at its end.

They are not in the database: data that SQLite has deleted may stay in its write-ahead log, in free
pages and in the gaps of other pages. A file is deleted with all of its contents.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from router.errors import InsufficientStorage
from router.prediction import FileRef, Prediction
from router.secret_inputs import SecretValues
from router.storage.private_files import require_private, write_private
from router.storage.store import Cursor, Store

log = logging.getLogger(__name__)


class SealedStore:
    """A `Store` around another one, which stores only the secrets' names.

    A prediction's row is written first and its sealed file second, both before the prediction is
    acknowledged. At its end the row is written first again, and then the file is deleted. A router
    that is killed in between leaves a prediction that was not acknowledged, or a file that
    `remove_others` deletes at the next start.
    """

    def __init__(self, store: Store, folder: Path, box_key: BoxKey) -> None:
        self._store = store
        self._folder = folder
        self._box_key = box_key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        # The ids of predictions with a sealed file: `_ids` when it is about to be written or is
        # written, `_written` when it is written.
        self._ids = {path.name for path in folder.iterdir()}
        self._written = set(self._ids)
        # Keeps writes in the order of the calls: a step must not be written after the end. It is
        # held briefly, and only for predictions with secrets.
        self._lock = asyncio.Lock()

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """See `Store.put`. Raises InsufficientStorage also when the secrets cannot be written."""
        if prediction.secrets:
            self._ids.add(prediction.id)
        elif prediction.id not in self._ids:
            await self._store.put(prediction, announce_at)
            return
        async with self._lock:
            if prediction.secrets and prediction.id not in self._written:
                await self._seal(prediction)
            await self._store.put(prediction, announce_at)
            if prediction.completed_at is not None:
                self._forget(prediction.id)

    async def claim(self, prediction: Prediction) -> bool:
        """See `Store.claim`. Raises InsufficientStorage also when the secrets cannot be written;
        then the id is free again."""
        if not await self._store.claim(prediction):
            return False
        if prediction.secrets:
            async with self._lock:
                try:
                    await self._seal(prediction)
                except InsufficientStorage:
                    await self._store.delete(prediction.id)
                    raise
        return True

    async def get(self, prediction_id: str) -> Prediction | None:
        """See `Store.get`. The values of secrets are not in it, as they are never shown."""
        return await self._store.get(prediction_id)

    async def delete(self, prediction_id: str) -> None:
        """See `Store.delete`."""
        await self._store.delete(prediction_id)
        self._forget(prediction_id)

    async def unfinished(self) -> Sequence[Prediction]:
        """See `Store.unfinished`. With the secrets' values; None for those that cannot be read."""
        found = await self._store.unfinished()
        return [self._with_values(p) if p.secrets else p for p in found]

    async def page(
        self,
        owner: str | None,
        *,
        before: Cursor | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> Sequence[Prediction]:
        """See `Store.page`. Without the values of secrets."""
        return await self._store.page(owner, before=before, after=after, limit=limit)

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """See `Store.sweep`. An ended prediction has no secrets any more."""
        return await self._store.sweep(completed_before)

    async def ended_ids(self) -> Collection[str]:
        """See `Store.ended_ids`."""
        return await self._store.ended_ids()

    def remove_others(self, prediction_ids: Iterable[str]) -> None:
        """Delete every sealed file that belongs to none of these predictions."""
        for prediction_id in self._ids - set(prediction_ids):
            self._forget(prediction_id)

    # ---- internal ------------------------------------------------------------------------

    async def _seal(self, p: Prediction) -> None:
        path = self._path(p.id)
        sealed = self._box_key.seal(p.id, p.secrets)
        self._ids.add(p.id)
        try:
            await asyncio.to_thread(self._write, path, sealed)
        except OSError as error:
            self._forget(p.id)
            reason = (error.strerror or "disk error").lower()
            raise InsufficientStorage(
                f"Cannot store the secret inputs: {reason}", retry_after_s=30
            ) from error
        self._written.add(p.id)

    def _write(self, path: Path, sealed: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may have been removed
        write_private(path, sealed)

    def _with_values(self, p: Prediction) -> Prediction:
        try:
            values = self._box_key.unseal(p.id, self._path(p.id).read_bytes())
        except (OSError, UnsealError) as error:
            fields = {"prediction": p.id, "reason": type(error).__name__}
            log.error("secret inputs cannot be read", extra=fields)
            return p
        return replace(p, secrets=SecretValues({name: values.get(name) for name in p.secrets}))

    def _forget(self, prediction_id: str) -> None:
        try:
            self._path(prediction_id).unlink(missing_ok=True)
        except OSError as error:
            # The file is encrypted, and the next start tries again to delete it.
            log.error("Cannot delete sealed inputs yet: %s", error.strerror)
        else:
            self._ids.discard(prediction_id)
            self._written.discard(prediction_id)

    def _path(self, prediction_id: str) -> Path:
        """The file of that id. Ids are letters, digits, `-` and `_` (router/http/apis/cog.py)."""
        return self._folder / Path(prediction_id).name


BOX_KEY_FILE = "box_key"
KEY_BYTES = 32
NONCE_BYTES = 12  # the standard length for AES-GCM
KEY_TEXT = re.compile(r"[0-9a-f]{64}\n?")
SEALING, DIGESTS = b"callme secret inputs v1", b"callme request digests v1"


class BoxKeyError(RuntimeError):
    """The file contains no key. The message says what to do."""


class UnsealError(Exception):
    """The data was sealed with another key or for another prediction, or is damaged."""


def load_box_key(path: Path) -> BoxKey:
    """The key in that file; a new one is made when there is no file. Raises BoxKeyError when the
    file is damaged, NotPrivateError when another user may write it, and OSError."""
    require_private(path)
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = secrets.token_hex(KEY_BYTES)
        write_private(path, f"{text}\n".encode())
    except UnicodeDecodeError:
        text = ""
    if not KEY_TEXT.fullmatch(text):
        raise BoxKeyError(
            f"{path} is damaged: it must hold 64 hex digits. Restore it, or remove it; then "
            "predictions that wait with secret inputs will fail"
        )
    return BoxKey(bytes.fromhex(text))


class BoxKey:
    """Seals and unseals values (AES-256-GCM), and makes digests against which only this box can
    check a guess (HMAC-SHA256). Each uses a key of its own, derived from this one."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(hmac.digest(key, SEALING, hashlib.sha256))
        self._digest_key = hmac.digest(key, DIGESTS, hashlib.sha256)

    def seal(self, prediction_id: str, values: Mapping[str, Any]) -> bytes:
        """The values, encrypted for that prediction only: nonce, then ciphertext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, orjson.dumps(values), prediction_id.encode())

    def unseal(self, prediction_id: str, sealed: bytes) -> dict[str, Any]:
        """The values that `seal` was given. Raises UnsealError when they cannot be decrypted."""
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            values: dict[str, Any] = orjson.loads(
                self._aead.decrypt(nonce, rest, prediction_id.encode())
            )
        except (InvalidTag, ValueError) as error:
            raise UnsealError(prediction_id) from error
        return values

    def digest(self, text: str) -> str:
        """A digest of the text, as 64 hex digits."""
        return hmac.new(self._digest_key, text.encode(), hashlib.sha256).hexdigest()
