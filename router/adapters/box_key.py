"""The box's own key: what secret inputs are sealed with while they must lie on disk."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from router.adapters.private_files import require_private, write_private

BOX_KEY_FILE = "box_key"
KEY_BYTES = 32
NONCE_BYTES = 12  # AES-GCM's own
KEY_TEXT = re.compile(r"[0-9a-f]{64}\n?")
SEALING, DIGESTS = b"callme secret inputs v1", b"callme request digests v1"


class BoxKeyError(RuntimeError):
    """The file holds no key; the message says what to do."""


class UnsealError(Exception):
    """Sealed with another key, for another prediction, or damaged."""


def load_box_key(path: Path) -> BoxKey:
    """The key in that file, made where there is none. Raises BoxKeyError, NotPrivateError,
    OSError."""
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
            f"{path} is damaged: it must hold 64 hex digits; restore it, or remove it, and "
            "predictions that wait with secret inputs will fail"
        )
    return BoxKey(bytes.fromhex(text))


class BoxKey:
    """Seals and opens values (AES-256-GCM), and makes digests that nobody else can check a guess
    against (HMAC-SHA256). Each under a key of its own, derived from this one."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(hmac.digest(key, SEALING, hashlib.sha256))
        self._digest_key = hmac.digest(key, DIGESTS, hashlib.sha256)

    def seal(self, prediction_id: str, values: Mapping[str, Any]) -> bytes:
        """The values for that prediction and no other."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, orjson.dumps(values), prediction_id.encode())

    def unseal(self, prediction_id: str, sealed: bytes) -> dict[str, Any]:
        """What `seal` was given. Raises UnsealError."""
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            values: dict[str, Any] = orjson.loads(
                self._aead.decrypt(nonce, rest, prediction_id.encode())
            )
        except (InvalidTag, ValueError) as error:
            raise UnsealError(prediction_id) from error
        return values

    def digest(self, text: str) -> str:
        """64 hex digits that stand for the text."""
        return hmac.new(self._digest_key, text.encode(), hashlib.sha256).hexdigest()
