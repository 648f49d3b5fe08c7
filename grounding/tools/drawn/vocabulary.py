"""The vocabulary of the drawn weights, and captions made of it.

A caption is a list of phrases about one scene: some true of something in it, some not. The false
ones are mostly near misses (right colour, wrong kind, and the reverse), since a detector confuses
those most.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "arrow")
OBJECTS = (
    "house",
    "tree",
    "sun",
    "boat",
    "car",
    "fish",
    "flower",
    "cloud",
    "moon",
    "cup",
    "umbrella",
    "mushroom",
)
KINDS = SHAPES + OBJECTS

Pair = tuple[str, str]
"""Colour and kind."""

UNSEEN: frozenset[Pair] = frozenset(
    [(COLOURS[i], SHAPES[(i + 3) % 8]) for i in range(8)]
    + [(COLOURS[(i + 5) % 8], kind) for i, kind in enumerate(OBJECTS)]
)
"""Pairs that training neither draws nor names; every colour and kind is in one."""

ALL_PAIRS: tuple[Pair, ...] = tuple((colour, kind) for colour in COLOURS for kind in KINDS)
SEEN: tuple[Pair, ...] = tuple(pair for pair in ALL_PAIRS if pair not in UNSEEN)

SMALL, BIG = 0.2, 0.36
"""Longer side of a thing as a share of the picture's shorter side: up to SMALL it is "small",
from BIG on "big", and between them neither word is right or wrong."""


@dataclass(frozen=True)
class Thing:
    """A drawn thing."""

    colour: str
    kind: str
    striped: bool
    extent: float
    """Longer side over the picture's shorter side."""


@dataclass(frozen=True)
class Phrase:
    """What one label says; None where it says nothing."""

    colour: str | None = None
    kind: str | None = None
    """A kind, or one of "shape" (any of SHAPES), "object" and "thing" (anything)."""
    striped: bool = False
    size: str | None = None
    """"small" or "big"."""

    @property
    def text(self) -> str:
        """The label's text.

        >>> Phrase("red", "circle", size="big").text
        'big red circle'
        """
        words = [self.size, "striped" if self.striped else None, self.colour, self.kind]
        return " ".join(word for word in words if word)

    def names(self, thing: Thing) -> bool | None:
        """Whether the phrase is true of the thing; None where its size is between."""
        if self.colour not in (None, thing.colour) or (self.striped and not thing.striped):
            return False
        if self.kind == "shape" and thing.kind not in SHAPES:
            return False
        if self.kind in KINDS and self.kind != thing.kind:
            return False
        if self.size is None:
            return True
        if SMALL < thing.extent < BIG:
            return None
        return (thing.extent <= SMALL) == (self.size == "small")


def caption(
    rng: random.Random,
    things: Sequence[Thing],
    pairs: Sequence[Pair],
    count: int,
    *,
    pairs_only: bool = False,
) -> list[Phrase]:
    """At most `count` different phrases about the scene, in random order.

    About 45 % start from a thing in the scene, 35 % from a near miss and 20 % from any of
    `pairs`. pairs_only: every phrase is a colour and a kind.
    """
    found: dict[Phrase, None] = {}
    for _ in range(count * 3):
        if len(found) >= count:
            break
        colour, kind = _pair(rng, things, pairs)
        phrase = Phrase(colour, kind) if pairs_only else _phrase(rng, colour, kind)
        if all(phrase.names(thing) is not None for thing in things):
            found[phrase] = None
    phrases = list(found)
    rng.shuffle(phrases)
    return phrases


def _pair(rng: random.Random, things: Sequence[Thing], pairs: Sequence[Pair]) -> Pair:
    how = rng.random()
    if not things or how >= 0.8:
        return rng.choice(pairs)
    thing = rng.choice(things)
    if how < 0.45 and (thing.colour, thing.kind) in pairs:
        return thing.colour, thing.kind
    return rng.choice([p for p in pairs if (p[0] == thing.colour) != (p[1] == thing.kind)] or pairs)


def _phrase(rng: random.Random, colour: str, kind: str) -> Phrase:
    how = rng.random()
    if how < 0.62:
        return Phrase(colour, kind)
    if how < 0.76:
        return Phrase(None, kind)
    if how < 0.86:
        any_kind = ("shape", "object", "thing") if kind in SHAPES else ("object", "thing")
        return Phrase(colour, rng.choice(any_kind))
    if how < 0.94:
        return Phrase(colour if rng.random() < 0.5 else None, kind, striped=True)
    return Phrase(colour if rng.random() < 0.5 else None, kind, size=rng.choice(("small", "big")))
