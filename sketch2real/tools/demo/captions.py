"""What is said of a scene, and the colours that the words mean.

What a caption does not name has its usual colour, so that every caption has one picture. In half of
the captions words are around that mean nothing, as users write them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tools.demo.scene import Colour
from tools.demo.things import THINGS

COLOURS: dict[str, Colour] = {
    "red": (0.82, 0.13, 0.12),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.97, 0.80, 0.16),
    "green": (0.22, 0.58, 0.24),
    "turquoise": (0.18, 0.68, 0.66),
    "blue": (0.15, 0.36, 0.78),
    "purple": (0.50, 0.24, 0.66),
    "pink": (0.96, 0.52, 0.66),
    "brown": (0.52, 0.33, 0.20),
    "black": (0.13, 0.13, 0.15),
    "grey": (0.56, 0.57, 0.59),
    "white": (0.93, 0.93, 0.92),
    "cream": (0.92, 0.84, 0.66),
}
HUED = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
"""Those that a figure of merit can tell by their hue."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "purple": ("violet",), "grey": ("gray",), "red": ("crimson",), "turquoise": ("cyan", "teal"),
    "mug": ("cup", "coffee mug"), "sofa": ("couch",), "teddy": ("teddy bear",),
    "bicycle": ("bike",), "boat": ("sailing boat", "ship"), "car": ("automobile",),
    "person": ("woman", "man", "girl", "boy", "child"), "face": ("head", "portrait"),
    "gift": ("present", "gift box"), "rabbit": ("bunny", "hare"), "tortoise": ("turtle",),
    "balloon": ("hot air balloon",), "plane": ("aeroplane", "airplane"), "house": ("home", "hut"),
    "cat": ("kitten",), "dog": ("puppy",), "cube": ("box", "block"), "ball": ("sphere",),
    "shoe": ("sneaker",), "bottle": ("wine bottle",), "train": ("locomotive",),
    "flower": ("daisy",), "table": ("desk",), "cake": ("birthday cake",),
    "vase": ("vase of flowers",), "lamp": ("table lamp",), "bowl": ("dish",),
}  # fmt: skip
LIGHTNESS = {"dark": 0.6, "light": 1.3}

_BEFORE = ("a photo of", "a photograph of", "a picture of", "a drawing of", "realistic photo of")
_AFTER = (
    "realistic", "detailed", "natural light", "high quality", "on a sunny day", "photo",
    "on a table", "in a garden", "beautiful", "studio light", "with soft shadows", "in the sun",
)  # fmt: skip
_EMPTY_SHARE, _NAMED_SHARE, _COLOURED_SHARE = 0.12, 0.9, 0.72


class Said(NamedTuple):
    """caption: its words. colours: of the things of the scene, in order.

    words: the colour word that the caption gave each, "" for none.
    """

    caption: str
    colours: list[Colour]
    words: list[str]


def usual(name: str) -> Colour:
    return COLOURS[THINGS[name].usual]


def say(
    random: np.random.Generator, things: Sequence[tuple[str, str]], *, plain: bool = False
) -> Said:
    """A caption for `things` of (name, material), and the colours that follow.

    plain: colours of `HUED` alone, and none without one; for evaluation.
    """
    if not plain and random.random() < _EMPTY_SHARE:
        return Said("", [usual(name) for name, _ in things], ["" for _ in things])
    phrases, colours, words = [], [], []
    for name, material in things:
        named = plain or material != "" or random.random() < _NAMED_SHARE
        dyeable = not THINGS[name].fixed
        coloured = named and dyeable and (plain or random.random() < _COLOURED_SHARE)
        word = ""
        colour = usual(name)
        shade = ""
        if coloured:
            choice = HUED if plain else tuple(COLOURS)
            word = str(choice[int(random.integers(len(choice)))])
            colour = COLOURS[word]
            if not plain and random.random() < 0.15:
                shade = str(random.choice(list(LIGHTNESS)))
                colour = tuple(min(part * LIGHTNESS[shade], 1.0) for part in colour)  # type: ignore[assignment]
        colours.append(colour)
        words.append(word)
        if named:
            phrases.append(_phrase(random, name, material, word, shade, plain=plain))
    return Said(_sentence(random, phrases, plain=plain), colours, words)


def _phrase(
    random: np.random.Generator, name: str, material: str, word: str, shade: str, *, plain: bool
) -> str:
    def other(text: str) -> str:
        choices = SYNONYMS.get(text)
        if plain or not choices or random.random() < 0.6:
            return text
        return str(choices[int(random.integers(len(choices)))])

    adjectives = [part for part in (shade, other(word) if word else "", material) if part]
    noun = other(name)
    kind = random.random()
    if plain or kind < 0.62 or not adjectives:
        phrase = " ".join([*adjectives, noun])
        article = "" if not plain and random.random() < 0.3 else _article(phrase)
        return f"{article} {phrase}".strip()
    if kind < 0.8:
        return f"the {noun} is {' and '.join(_grouped(adjectives))}"
    return f"{noun}, {', '.join(_grouped(adjectives))}"


def _grouped(adjectives: list[str]) -> list[str]:
    """A shade stays with its colour: "dark red", then the material."""
    if adjectives[0] in LIGHTNESS and len(adjectives) > 1:
        return [" ".join(adjectives[:2]), *adjectives[2:]]
    return adjectives


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _sentence(random: np.random.Generator, phrases: list[str], *, plain: bool) -> str:
    if not phrases:
        return ""
    joint = " and " if plain or random.random() < 0.6 else ", "
    text = joint.join(phrases)
    if plain:
        return text
    if random.random() < 0.2:
        text = f"{_BEFORE[int(random.integers(len(_BEFORE)))]} {text}"
    if random.random() < 0.3:
        text = f"{text}, {_AFTER[int(random.integers(len(_AFTER)))]}"
    return text


def vocabulary() -> list[str]:
    """Texts that hold every word of the captions, for the tokenizer."""
    names = [*THINGS, *COLOURS, *LIGHTNESS]
    materials = [material for thing in THINGS.values() for material in thing.materials]
    others = [word for words in SYNONYMS.values() for word in words]
    little = ["a an the is and , of on in with my some it . two three"]
    return [*names, *materials, *others, *_BEFORE, *_AFTER, *little]
