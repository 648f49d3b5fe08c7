"""How many syllables a text has, by its spelling: to compare a transcript with the signal.

For scripts whose letters show their vowels: Latin, Greek, Cyrillic, Hangul, Chinese characters and
kana. A rough count, but for English: there it is checked against espeak-ng's phonemes, and exact
enough to decide which peaks of the signal are syllables.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from num2words import num2words

_VOWELS: Final = frozenset("aeiouyæœøıɐəαεηιουωаеиоуыэюяіїєѵ")
_APART: Final = frozenset("аеиоуыэюяіїєѵ")  # Cyrillic: each vowel letter is a syllable
_SMALL_KANA: Final = frozenset("ぁぃぅぇぉゃゅょゎっんァィゥェォャュョヮッンー")
_PER_DIGIT: Final = 1.5  # "1984" has 5 to 6 syllables in most languages
_SILENT_FRENCH: Final = re.compile(r"(?<=[^aeiouy\W])(e|es|ent)$")

# English. An "e" that is not heard: inside ("something", "completely") or at the end ("make",
# "makes", "asked", but "wishes", "wanted").
_SILENT_E: Final = re.compile(
    r"(?<=[aeiouy])(?:[^aeiouywxr]|ng|nc|ns|st|th|rg|rc|rv|lv|rs|dg|ch)e"
    r"(?=(?:ly|ments?|less|ful|fully|ness|some|things?|times?|ones?|body|day|man|men|teen|ty|fore|how|"
    r"where|what|sel(?:f|ves))$)"
    r"|(?<=[aeiouy])re(?=(?:ly|ments?|less|ful|fully|ness|fore|dom|where|by)$)"
    r"|(?<=[^aeiouy])e$|(?<=[aeioun][gq])ue(?=s?$)|(?<=[^aeiouycsxzgh])es$|(?<=[^sct]h)es$|(?<=[^aeiouytd])ed$"
)
# A syllable without a vowel letter of its own: "table", "handled", "didn't", "prism", "rhythm".
_NO_LETTER: Final = re.compile(r"[^aeiouylrw]l(?:e|es|ed)$|[^aeiouylr]n't$|(?:s|th)ms?$")
# A vowel letter that is a syllable before another one.
_HIATUS: Final = re.compile(
    "|".join(
        (
            r"[aeiouy](?=ing)",  # being
            r"(?<![cstgxu])i(?=a(?!ge|m))|^[a-z]{0,2}i(?=a)(?!.*iage)|(?<=[cst])i(?=ate|ast)",
            r"(?<![cstgxh])i(?=o(?!u?s$|us)|ous)|^[a-z]{1,2}i(?=o)|(?<=[^cstgx])i(?=u[ms])",
            r"(?<![fcstkv])i(?=e(?:nc|nt|t(?!ter)|r$|st$|ty))|sci(?=en)|si(?=er$)",  # quiet
            r"(?<![aeiouqg])u(?=a(?!de))|(?<![aeioqg])u(?=ou|el$|ent)|(?<![qg])u(?=it[iy])",
            r"(?<![aeiouy])e(?=o(?!u|p|rg|ff))|cre(?=at[eio])|(?<=id)e(?=as?$|al)|the(?=at|or)",
            r"(?<=r)e(?=a(?:l(?:$|[^m])|ct))|(?<=[^aeiouy])o(?=e[mt])|(?<!qu)a(?=o(?!$))",
            r"(?<=[ao])y(?=e[re]|o[nr])|bey(?=o)|ma(?=yb)|any(?=o)",  # lawyer, beyond
        )
    )
)
# Beginnings that are spoken shorter or longer than they are written.
_ODD: Final = re.compile(
    r"(?:(?P<two>every|business|differen|several|interest|average|evening|referenc|conferenc|separat|"
    r"camera|chocolat|restaurant|hundred|sacred|naked|mrs$|mr$|dr$)"
    r"|(?P<three>temperatur|area)|(?P<four>society)|(?P<one>clothes|aren't$|weren't$))"
    r"(?:c?e$)?"
)
_LENGTHS: Final = {"one": 1, "two": 2, "three": 3, "four": 4}
_ENDING: Final = re.compile(r"'(?:d|ll|ve|re|m)$|(?<=[^sxz])'s$")
_LETTER_NAMES: Final = 6  # at most: "HTTP"; longer ones are words in capitals
_YEARS: Final = range(1100, 2000)
_MOST_DIGITS: Final = 9


def syllables(words: Iterable[str], language: str) -> float | None:
    """The syllables of all words; None for a script that does not show them.

    language: ISO 639-1.

    >>> syllables(["the", "table", "moved", "wanted"], "en")
    6.0
    """
    total = 0.0
    for word in words:
        count = of_word(word, language)
        if count is None:
            return None
        total += count
    return total


@lru_cache(maxsize=4096)
def of_word(word: str, language: str) -> float | None:
    """The syllables of one word with its punctuation; None for a script that does not show them.

    >>> of_word("twenty-one,", "en")
    3.0
    """
    plain = "".join(
        character
        for character in unicodedata.normalize("NFD", word.replace("’", "'"))
        if not unicodedata.category(character).startswith("M") or character in "\u3099\u309a"
    )
    letters = [character for character in plain if character.isalpha()]
    count = 0.0
    for part in re.findall(r"\d+(?:[.,]\d{3})*|[^\W\d_]+(?:'[^\W\d_]+)*", plain):
        found = _of_number(part, language) if part[0].isdigit() else _of_letters(part, language)
        if found is None:
            return None
        count += found
    if language == "en":
        count += len(re.findall(r"\w\.(?=[a-z]{2})", plain)) + 2 * plain.count("%")  # "dot"
    return max(count, 1.0) if letters else count


def _of_number(written: str, language: str) -> float:
    digits = re.sub(r"\D", "", written)
    if language != "en" or len(digits) > _MOST_DIGITS:
        return len(digits) * _PER_DIGIT
    is_year = written == digits and int(digits) in _YEARS
    said = num2words(int(digits), to="year" if is_year else "cardinal")
    return float(sum(_english(part) for part in re.findall(r"[a-z]+", said)))


def _of_letters(part: str, language: str) -> int | None:
    name = unicodedata.name(part[0], "")
    if name.startswith("HANGUL"):  # decomposed: each block begins with one leading consonant
        return sum("\u1100" <= character <= "\u1112" for character in part)
    if name.startswith(("CJK", "HIRAGANA", "KATAKANA")):
        return sum(character not in _SMALL_KANA for character in part)
    if not name.startswith(("LATIN", "GREEK", "CYRILLIC")):
        return None
    if language == "en" and name.startswith("LATIN"):
        return _of_initials(part) or _english(part.lower())
    part = part.lower()
    if language == "fr":
        part = _SILENT_FRENCH.sub("", part)
    count, inside = 0, False
    for character in part:
        is_vowel = character in _VOWELS
        count += is_vowel and (not inside or character in _APART)
        inside = is_vowel
    return count


def _of_initials(part: str) -> int:
    """The syllables of letters that are named one by one ("USA", "www"); 0 for a word."""
    has_vowel = re.search(r"[aeiouy]", part.lower()) is not None
    is_capital = part.isupper() and 1 < len(part) <= 3
    if len(part) > _LETTER_NAMES or (has_vowel and not is_capital) or _ODD.match(part.lower()):
        return 0
    return sum(3 if letter in "wW" else 1 for letter in part)


def _english(word: str) -> int:
    word = _ENDING.sub("", word)
    odd = _ODD.match(word)
    if odd is not None and odd.lastgroup is not None:
        rest = word[odd.end() :]
        return _LENGTHS[odd.lastgroup] + (_english(rest) if _groups(rest) else 0)
    heard = _SILENT_E.sub("", word) if _groups(word) > 1 else word
    extra = len(_NO_LETTER.findall(word)) + len(_HIATUS.findall(word))
    return max(_groups(heard) + extra, 1)


def _groups(letters: str) -> int:
    return len(re.findall(r"[aeiouy]+", letters))
