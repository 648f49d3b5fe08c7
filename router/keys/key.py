"""Keys: what the router stores of a key, and how a caller proves that it has one.

The router stores a verifier, never the key: HMAC-SHA256 of a fixed text under the key. HMAC is
used as a pseudo-random function, as in HKDF's expansion (RFC 5869, section 2.3). A caller signs its
requests with the verifier, or sends the key itself, and the router computes the verifier from it.
A key has at least 64 bits that cannot be guessed, so no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

# supabase/functions/backend_server/sign.ts has the same text.
SIGNING_CONTEXT = b"callme request signing v2"


def verifier_of(secret: str) -> bytes:
    """Return a key's verifier, 32 bytes. It signs requests, and it is what is stored."""
    return hmac.new(secret.encode(), SIGNING_CONTEXT, hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class Key:
    """An accepted key.

    `id` names it in logs and limits. `holder` is its owner: two keys of one holder see the same
    predictions and files. `is_admin`: it sees those of every holder. A limit of None is no limit.
    Verifiers are compared in constant time. `local`: only a program on this machine may use it,
    and it does not make keys required.
    """

    id: str
    verifier: bytes = field(repr=False)
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    local: bool = False
    holder: str = ""
    is_admin: bool = False

    def caller(self) -> Caller:
        """Return the caller that this key stands for."""
        return Caller(self.holder or self.id, self.is_admin)


def split_key(text: str) -> tuple[str, str, str]:
    """Return the id, holder and secret of `id@holder:secret`, `id:secret` or `secret`.

    A missing part is "".
    """
    name, colon, secret = text.partition(":")
    if not colon:
        return "", "", text
    key_id, _, holder = name.partition("@")
    return key_id, holder, secret


def parse_keys(
    texts: Iterable[str],
    requests_per_minute: int | None = None,
    concurrent_requests: int | None = None,
    *,
    is_admin: bool = False,
) -> tuple[Key, ...]:
    """Return keys from texts that `split_key` can read.

    A key without an id is called key1, key2 … and has a holder of its own, named by a hash of its
    verifier. So when the order of the keys changes, each still sees the same predictions.
    """
    keys = []
    for i, text in enumerate(texts, 1):
        key_id, holder, secret = split_key(text)
        verifier = verifier_of(secret)
        if not key_id:
            holder = f"key-{hashlib.sha256(verifier).hexdigest()[:32]}"
            key_id = f"admin{i}" if is_admin else f"key{i}"
        limits = (requests_per_minute, concurrent_requests)
        keys.append(Key(key_id, verifier, *limits, holder=holder, is_admin=is_admin))
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The keys that are accepted.

    `required` is False until there is a first key, and again after the operator has opened the
    router to this machine. While it is False, programs on this machine need no key.
    """

    keys: Sequence[Key]
    required: bool


def who_is_served(keys: int, closed: bool) -> str:
    """Say, for a person, who may call a router with this number of keys.

    `closed`: without any key, no request is served.
    """
    if keys:
        return f"{keys} {'key' if keys == 1 else 'keys'}; without one nobody is served"
    if closed:
        return (
            "no key, and nobody is served, since there has been one: callme keys create NAME, "
            "or callme keys open-to-this-machine"
        )
    return "no key: programs of this machine are served, and requests that look like theirs"


class KeySource(Protocol):
    """Knows the keys of this moment. They come and go while the service runs."""

    def current(self) -> Accepted:
        """Return the keys that are accepted now, and whether one is required."""


class FixedKeys:
    """Keys that do not change."""

    def __init__(self, keys: Iterable[Key]) -> None:
        kept = tuple(keys)
        self._accepted = Accepted(kept, any(not key.local for key in kept))

    def current(self) -> Accepted:
        """Return all of them. A key is required if one of them is not local."""
        return self._accepted


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    `owner`: the holder of its key, as predictions and files store it; "" where no key is required.
    An admin sees what every holder has made.
    """

    owner: str
    is_admin: bool = False

    def may_see(self, owner: str) -> bool:
        """Whether the caller may see, cancel and use what that owner has made."""
        return self.is_admin or self.owner == owner

    @property
    def only_owner(self) -> str | None:
        """The only owner whose predictions and files it may see; None for an admin."""
        return None if self.is_admin else self.owner


# For the router's own work, and for URLs that contain a token of their own instead of a key.
TRUSTED = Caller("", is_admin=True)
