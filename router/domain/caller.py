"""For whom a request is made, and whose predictions and files that lets it see."""

from __future__ import annotations

from dataclasses import dataclass


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
