"""The ways to say a written number, amount of money, time, title or abbreviation.

A reading is given as one string of letters without spaces ("nineteeneightyfour"), so that it does
not matter how a transcript divides or hyphenates it. Numbers in words are num2words's, in the forty
languages that it knows; the tables below hold what it lacks. A token that has no other reading than
its letters has none here.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

from num2words import CONVERTER_CLASSES

_LONGEST: Final = 60  # characters
_MOST_DIGITS: Final = 15
_MOST_READINGS: Final = 400
_CODES: Final = {"kk": "kz", "nn": "no"}
_YEARS: Final = range(1100, 2100)


def joined(text: str) -> str:
    """Lower case, letters, digits and their marks only.

    >>> joined("Vingt-et-un, s’il")
    'vingtetunsil'
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in plain if c.isalnum() or unicodedata.category(c).startswith("M"))


_TABLES: Final[dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
_MONEY: Final[dict[str, dict[str, Any]]] = _TABLES["money"]
_DIGIT_NAMES: Final = {("en", 0): ("oh", "o", "zero", "nought"), ("de", 2): ("zwei", "zwo")}
_ORDINAL: Final = re.compile(r"(\d{1,4})(st|nd|rd|th|er|re|e|ème|de|ste|º|ª|o|a|\.)")
_TIME: Final = re.compile(r"(\d{1,2})(?:[:.h]|uhr)(\d{2})?(?: uhr)?")
_ROMAN: Final = re.compile(r"(?=[IVXLCDM])M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_LETTERS: Final = ("I", "C", "D", "L", "M")  # words and initials
_ROMAN_VALUES: Final = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_POINT: Final = {"en", "ja", "zh", "ko", "th", "he"}  # "1.5"; the others write "1,5"


@lru_cache(maxsize=4096)
def readings(token: str, language: str) -> frozenset[str]:
    """Every way to say a token; empty where it has only its letters.

    token: as written, without the punctuation around it; language: ISO 639-1.

    >>> "nineteeneightyfour" in readings("1984", "en")
    True
    """
    if len(token) > _LONGEST:
        return frozenset()
    found = {one for one in _all(token.strip(), language) if one}
    return frozenset(sorted(found)[:_MOST_READINGS])


def _all(token: str, language: str) -> Iterator[str]:
    abbreviation = joined(token)
    yield from _named("abbreviations", language, abbreviation)
    yield from _named("signs", language, token)
    if token in _MONEY.get(language, {}):
        yield from map(joined, _MONEY[language][token][0])
    letters = token.replace(".", "")
    if letters.isalpha() and (letters.isupper() or "." in token) and 1 < len(letters) <= 6:
        yield abbreviation  # "U.S." said or written "US"
    if _ROMAN.fullmatch(token) and token not in _LETTERS:
        value = _roman(token)
        yield from _cardinals(value, language)
        for ordinal in _ordinals(value, language):
            yield from (ordinal, "the" + ordinal) if language == "en" else (ordinal,)
    if any(character.isdigit() for character in token):
        yield from _numeric(unicodedata.normalize("NFKC", token), language)


def _named(table: str, language: str, written: str) -> list[str]:
    return [joined(one) for one in _TABLES[table].get(language, {}).get(written, ())]


def _numeric(token: str, language: str) -> Iterator[str]:
    """Readings of a token that holds a digit."""
    if match := _ORDINAL.fullmatch(token.lower()):
        yield from _ordinals(int(match[1]), language)
    if match := _TIME.fullmatch(token.lower()):
        yield from _times(int(match[1]), int(match[2] or 0), language)
    if match := re.fullmatch(r"(.*\d)\s?%", token):
        names = _named("signs", language, "%")
        yield from _pairs(_plain(match[1], language), names)
    yield from _amounts(token, language)
    if match := re.fullmatch(r"(\d+)/(\d+)", token):
        yield from _fractions(int(match[1]), int(match[2]), language)
    if match := re.fullmatch(r"(\S*\d)[-–](\d\S*)", token):
        between = ("", joined(_TABLES["to"].get(language, "")))
        yield from _pairs(readings(match[1], language), between, readings(match[2], language))
    if match := re.fullmatch(r"(\d{1,3}0)s", token):  # "the 1980s", "the 90s"
        yield from (_plural(one) for one in _plain(match[1], language))
    parts = re.findall(r"\d[\d.,]*|[^\W\d_]+", token)
    if len(parts) > 1 and re.fullmatch(r"[\w.,\-]+", token) and re.search(r"[^\W\d_]", token):
        yield from _pairs(*(_part(part, language) for part in parts))  # "A4", "5kg", "COVID-19"
    yield from _plain(token, language)


def _part(part: str, language: str) -> list[str]:
    if part[0].isdigit():
        return list(_plain(part, language))
    return [joined(part), *_named("abbreviations", language, joined(part))]


def _pairs(*choices: Iterable[str]) -> Iterator[str]:
    """Every combination, in order, as one string."""
    for count, parts in enumerate(product(*choices)):
        if count >= _MOST_READINGS:
            return
        yield "".join(parts)


def _plain(number: str, language: str) -> list[str]:
    """Readings of a number with or without separators; "1,984" may be a decimal elsewhere."""
    bare = number.strip(".,'’ ")
    if not re.fullmatch(r"\d+(?:[.,'’ ]\d+)*", bare):
        return []
    point = "." if language in _POINT else ","
    made: list[str] = []
    if re.fullmatch(r"\d{1,3}(?:[.,'’ ]\d{3})+", bare) or bare.isdigit():
        made += _integer(re.sub(r"\D", "", bare), language)
    whole, _, decimals = bare.rpartition(point)
    whole = re.sub(r"\D", "", whole)
    if whole and decimals.isdigit():
        theirs = joined(getattr(_converter(language), "pointword", ""))
        names = _POINT_NAMES.get(language, (theirs,))
        spelled = [*_spelled(decimals, language), *_cardinals(int(decimals), language)]
        made += _pairs(_integer(whole, language), names, spelled)
        if int(whole) == 0:
            made += _pairs(names, spelled)  # "point five"
    return made


def _integer(digits: str, language: str) -> list[str]:
    """A number as such, as a year, by its digits, and in pairs."""
    if len(digits) > _MOST_DIGITS:
        return list(_spelled(digits, language))
    value = int(digits)
    made = list(_cardinals(value, language))
    if len(digits) == 4 and value in _YEARS:
        made += _said(value, language, "year")
    if len(digits) in (3, 4) and digits[0] != "0":  # "one oh five", "nineteen eighty-four"
        high, low = int(digits[:-2]), digits[-2:]
        names = _cardinals(high, language)
        hundreds = _HUNDRED.get(language, ())
        if low == "00":
            made += _pairs(names, hundreds)
        elif low[0] == "0":
            made += _pairs(names, _spelled(low, language))
        else:
            made += _pairs(names, _cardinals(int(low), language))
        if low != "00":
            made += _pairs(names, hundreds, _cardinals(int(low), language))
    return [*made, *_spelled(digits, language)]


def _spelled(digits: str, language: str) -> Iterator[str]:
    """Digit by digit."""
    names = [
        (*_DIGIT_NAMES.get((language, int(one)), ()), *_said(int(one), language, "cardinal"))
        for one in digits[:40]
    ]
    return _pairs(*(dict.fromkeys(some) for some in names))


def _cardinals(value: int, language: str) -> list[str]:
    made = _said(value, language, "cardinal")
    if language == "en":
        made += ["a" + one[3:] for one in made if _BIG_ONE.match(one)]
    if language == "de":
        made += [one[3:] for one in made if re.match(r"ein(hundert|tausend)", one)]
    for ending, others in _GENDERS.get(language, {}).items():
        made += [
            one.removesuffix(ending) + other
            for one in made
            if one.endswith(ending)
            for other in others
        ]
    return made


def _ordinals(value: int, language: str) -> list[str]:
    made = _said(value, language, "ordinal")
    if language == "de":
        made += [one + end for one in made for end in ("n", "r", "s", "m")]
    if language in ("es", "it", "pt"):
        made += [one[:-1] + "a" for one in made if one.endswith("o")]
    if language == "es":
        made += [one[:-1] for one in made if one.endswith(("primero", "tercero"))]
    return made


def _times(hour: int, minute: int, language: str) -> Iterator[str]:
    if hour > 24 or minute > 59:
        return
    hours, minutes = _cardinals(hour, language), _cardinals(minute, language)
    names = _TABLES["clock"].get(language, ())
    if language == "de" and hour == 1:
        hours = [*hours, "ein"]
    if language == "fr" and hour == 1:
        hours = [*hours, "une"]
    if minute == 0:
        yield from hours
        yield from _pairs(hours, names)
        return
    if minute < 10:
        minutes = [*minutes, *_spelled(f"0{minute}", language)]
    yield from _pairs(hours, ("", *names), minutes)
    if language == "en":
        following = _cardinals(hour % 12 + 1, language)
        if minute == 30:
            yield from _pairs(("halfpast",), hours)
        if minute == 15:
            yield from _pairs(("quarterpast", "aquarterpast"), hours)
        if minute == 45:
            yield from _pairs(("quarterto", "aquarterto"), following)
    if language in ("de", "nl") and minute == 30:
        yield from _pairs(("halb" if language == "de" else "half",), _cardinals(hour + 1, language))


def _amounts(token: str, language: str) -> Iterator[str]:
    """Money: "$5", "5 €", "£3.50", "$5 million"."""
    for symbol, (units, parts) in _MONEY.get(language, {}).items():
        if symbol not in token:
            continue
        bare = token.replace(symbol, "").removesuffix(".-").strip()
        match = re.fullmatch(r"([\d.,'’ ]+)\s*([^\W\d_]*)", bare)
        if match is None:
            continue
        scales = _SCALES.get(match[2].lower(), (joined(match[2]),))
        yield from _pairs(_plain(match[1], language), scales, units)
        if cents := re.fullmatch(r"(\d+(?:[.,]\d{3})*)[.,](\d\d)", match[1].strip()):
            whole = _plain(cents[1], language)
            if int(cents[2]) == 0:
                yield from _pairs(whole, units)
                continue
            hundredths = _cardinals(int(cents[2]), language)
            middle = ("", _TABLES["and"][language])
            yield from _pairs(whole, units, middle, hundredths, ("", *parts))
            yield from _pairs(whole, hundredths)
            if int(re.sub(r"\D", "", cents[1])) == 0:
                yield from _pairs(hundredths, parts)


_BIG_ONE: Final = re.compile(r"one(hundred|thousand|million)")
# The last part of a number changes with the noun behind it.
_GENDERS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "de": {"eins": ("ein", "eine", "einen", "einem", "einer")},
    "es": {"uno": ("un", "ún", "una")},
    "fr": {"un": ("une",)},
    "it": {"uno": ("un", "una")},
    "pt": {"um": ("uma",), "dois": ("duas",)},
}
# "Nineteen hundred and five".
_HUNDRED: Final = {
    "en": ("hundred", "hundredand"),
    "de": ("hundert",),
    "nl": ("honderd",),
    "sv": ("hundra",),
    "da": ("hundrede",),
    "no": ("hundre",),
}
_POINT_NAMES: Final = {"en": ("point",), "es": ("coma", "punto")}
_SCALES: Final = {"m": ("million",), "bn": ("billion",), "k": ("thousand",)}


def _fractions(above: int, below: int, language: str) -> Iterator[str]:
    if language != "en" or not 1 < below <= 100 or above > 100:
        return
    names = {2: ("half", "halves"), 4: ("quarter", "quarters", "fourth", "fourths")}
    parts = names.get(below) or tuple(
        other for one in _ordinals(below, language) for other in (one, _plural(one))
    )
    yield from _pairs(_cardinals(above, language), parts)
    if above == 1:
        yield from _pairs(("", "a"), parts)
    yield from _pairs(_cardinals(above, language), ("over",), _cardinals(below, language))


def _plural(word: str) -> str:
    return word[:-1] + "ies" if word.endswith("y") else word + "s"


def _roman(numeral: str) -> int:
    values = [_ROMAN_VALUES[letter] for letter in numeral]
    return sum(
        -value if value < following else value
        for value, following in zip(values, [*values[1:], 0], strict=True)
    )


def _converter(language: str) -> Any:
    return CONVERTER_CLASSES.get(_CODES.get(language, language))


def _said(value: int, language: str, form: str) -> list[str]:
    """num2words's reading, if it has one. form: "cardinal", "ordinal" or "year"."""
    converter = _converter(language)
    if converter is None:
        return []
    try:
        said = getattr(converter, f"to_{form}")(value)
    except (NotImplementedError, AttributeError, TypeError, KeyError, OverflowError, ValueError):
        return []  # a form that this language lacks
    # English numbers are read with and without "and".
    texts = [str(said), str(said).replace(" and ", " ")] if language == "en" else [str(said)]
    return list(dict.fromkeys(joined(text) for text in texts))
