"""A model with secret inputs: it says what it got by hashes, and keeps them to itself."""

import hashlib
import time

from cog import BaseModel, BaseRunner, Input, Secret


class InvalidInput(ValueError):
    """The input cannot be used; the message is for the person who sent it."""


class Kept(BaseModel):
    """What arrived: SHA-256 in hex, "" for nothing."""

    token: str
    more: list[str]
    hint: str
    fallback: str


class Runner(BaseRunner):
    """Hashes its secrets."""

    def run(
        self,
        token: Secret = Input(description="A secret", default=None),
        more: list[Secret] = Input(description="Several", default=[]),
        hint: Secret | None = Input(description="One that may be left out", default=None),
        fallback: Secret = Input(description="One with a default", default=Secret("as-shipped")),
        label: str = Input(description="No secret", default="none"),
        mode: str = Input(
            description="How to behave", default="hash", choices=["hash", "invalid", "raise"]
        ),
        delay_s: float = Input(description="Seconds to take", default=0, ge=0, le=600),
    ) -> Kept:
        """Hash them, or object to the token as `mode` says."""
        print(f"kept {label} {token}")
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline:
            time.sleep(0.01)
        if mode == "invalid":
            raise InvalidInput(f"Cannot use 'token': {token.get_secret_value()} has expired")
        if mode == "raise":
            raise RuntimeError(f"401 for {token.get_secret_value()}")
        return Kept(
            token=hashed(token),
            more=list(map(hashed, more)),
            hint=hashed(hint),
            fallback=hashed(fallback),
        )


def hashed(secret: Secret | str | None) -> str:
    """Of its value; coglet 0.23.1 hands over the items of a list as they came."""
    value = secret.get_secret_value() if isinstance(secret, Secret) else secret
    return hashlib.sha256(value.encode()).hexdigest() if value else ""
