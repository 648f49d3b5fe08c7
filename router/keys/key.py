"""Keys: what the box keeps of them, and what it takes to be one's holder.

The box keeps a verifier, never the key: HMAC-SHA256 of a fixed text under the key, HMAC being used
as a pseudo-random function as in HKDF's expansion (RFC 5869, section 2.3). The holder of the key
signs requests under the verifier, or sends the key itself, from which the box computes the
verifier. A key has at least 64 bits nobody can guess, so no slow hash is needed.
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
    """The 32 bytes that stand for a key: what requests are signed under, and what is kept."""
    return hmac.new(secret.encode(), SIGNING_CONTEXT, hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class Key:
    """An accepted key. `id` names it in logs and limits; `holder` is whose it is: two keys of one
    holder see the same predictions and files. `is_admin`: sees everybody's.

    None as a limit is no limit. Verifiers are compared in constant time. `local`: good only for
    a program on this machine, and no reason to ask others for a key.
    """

    id: str
    verifier: bytes = field(repr=False)
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    local: bool = False
    holder: str = ""
    is_admin: bool = False

    def caller(self) -> Caller:
        """Who asks with this key."""
        return Caller(self.holder or self.id, self.is_admin)


def split_key(text: str) -> tuple[str, str, str]:
    """Id, holder and secret of `id@holder:secret`, `id:secret` or `secret`; "" for what is not
    there."""
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
    """Keys as `split_key` reads them. Without an id they are called key1, key2 … and each has a
    holder of its own: their order may change, and whose predictions they see must not."""
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
    """The keys that open. Not `required` until there is a first one, and again when a person says
    so: then this machine's own programs need none."""

    keys: Sequence[Key]
    required: bool


def who_is_served(keys: int, closed: bool) -> str:
    """For a person: who may call a box with so many keys. `closed`: without one, nobody."""
    if keys:
        return f"{keys} {'key' if keys == 1 else 'keys'}; without one nobody is served"
    if closed:
        return (
            "no key, and nobody is served, since there has been one: callme keys create NAME, "
            "or callme keys open-to-this-machine"
        )
    return "no key: programs of this machine are served, and what reaches the port as one"


class KeySource(Protocol):
    """Who may call, as of now: keys come and go while the service runs."""

    def current(self) -> Accepted:
        """The keys that open, and whether one is needed."""


class FixedKeys:
    """Keys that do not change."""

    def __init__(self, keys: Iterable[Key]) -> None:
        kept = tuple(keys)
        self._accepted = Accepted(kept, any(not key.local for key in kept))

    def current(self) -> Accepted:
        """All of them; needed if one is not only for this machine."""
        return self._accepted


@dataclass(frozen=True, slots=True)
class Caller:
    """`owner`: the holder of the key, as predictions and files remember it; "" where no key is
    asked for. An admin sees what every holder has made."""

    owner: str
    is_admin: bool = False

    def may_see(self, owner: str) -> bool:
        """Whether it may see, cancel and use what that owner has made."""
        return self.is_admin or self.owner == owner

    @property
    def only_owner(self) -> str | None:
        """The one owner whose things it may see; None for an admin."""
        return None if self.is_admin else self.owner


# For the router's own work, and for URLs that hold a token of their own in place of a key.
TRUSTED = Caller("", is_admin=True)
