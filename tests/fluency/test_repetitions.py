"""Doubles that are grammar, emphasis, names or numbers are no repetition; hesitation is one."""

import disfluency
import pytest


def repeated(said: str, language: str, pause_after: int | None = None) -> str:
    """The repeated words, `-` for none. pause_after: the word that half a second follows."""
    words = said.split()
    gaps_s = [0.5 if index == pause_after else 0.0 for index in range(len(words) - 1)]
    kinds = disfluency.classify(words, language, gaps_s=gaps_s)
    found = [word for word, kind in zip(words, kinds, strict=True) if kind == "repetition"]
    return " ".join(found) or "-"


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "Das sind die, die gestern kamen."),
        ("de", "die Frau, die die Tür öffnet"),
        ("de", "wenn sie sie sehen"),
        ("de", "Ja, ja, das stimmt."),
        ("de", "ja ja so ist es"),
        ("de", "null null sieben eins eins"),
        ("de", "immer und immer und immer wieder"),
        ("nl", "de man die die deur opent"),
        ("fr", "nous nous sommes trompés"),
        ("fr", "vous vous levez tôt"),
        ("fr", "non non ce n'est rien"),
        ("es", "muy muy bueno"),
        ("es", "uno dos dos tres"),
        ("it", "piano piano arriva"),
        ("it", "sì sì, va bene"),
        ("pt", "quase quase lá"),
        ("hi", "धीरे धीरे चलो"),
        ("hi", "धीरे धीरे धीरे धीरे चलो"),
        ("tr", "yavaş yavaş gel"),
        ("tr", "kapı kapı dolaştı"),
        ("ko", "빨리 빨리 와"),
        ("id", "anak anak bermain"),
        ("ta", "மெல்ல மெல்ல வா"),
        ("bn", "আস্তে আস্তে যাও"),
        ("sw", "pole pole ndiyo"),
        ("vi", "xanh xanh lắm"),
        ("sv", "det som som är"),
        ("en", "New York, New York is big"),
        ("en", "in New York New York"),
        ("en", "we saw Bora Bora"),
        ("en", "let it snow, let it snow"),
        ("en", "a long, long time"),
        ("en", "a big, big house"),
        ("en", "call five five five one two"),
        ("en", "call 5 5 5 1 2"),
        ("en", "it is spelled b o o k"),
        ("en", "no no no wait"),
        ("en", "go go go team"),
        ("en", "again and again and again"),
        ("en", "more and more and more people"),
        ("en", "day by day by day"),
        ("en", "he said that that was had had"),
        ("en", "It was the best of times. It was the best of times."),
        ("en", "very very good"),
        ("ru", "чуть чуть позже"),
        ("pl", "tak tak wiem"),
    ],
)
def test_intended_doubles_are_no_repetition(language: str, said: str) -> None:
    """Without a pause between the two."""
    assert repeated(said, language) == "-"


@pytest.mark.parametrize(
    ("language", "said", "pause_after", "wanted"),
    [
        ("en", "I, I went home", None, "I,"),
        ("en", "I… I went home", None, "I…"),
        ("en", "the the the house", None, "the the"),
        ("en", "in the, in the house", None, "in the,"),
        ("en", "I want to I want to go", None, "I want to"),
        ("en", "he went went home", None, "went"),
        ("en", "a big uh big house", None, "big"),
        ("en", "a house house here", 1, "house"),
        ("de", "auf dem auf dem Tisch", None, "auf dem"),
        ("de", "ich ich weiß", None, "ich"),
        ("de", "ein Haus Haus am See", None, "Haus"),
        ("fr", "je je ne sais pas", None, "je"),
        ("es", "en la en la casa", None, "en la"),
        ("it", "con il con il treno", None, "con il"),
        ("pt", "eu eu não sei", None, "eu"),
        ("nl", "ik ik weet het niet", None, "ik"),
        ("hi", "मैं मैं जाऊँगा", 0, "मैं"),
        ("tr", "yavaş yavaş gel", 0, "yavaş"),
        ("sv", "jag jag vet", 0, "jag"),
        ("en", "that that was it", 0, "that"),
    ],
)
def test_hesitation_repeats(language: str, said: str, pause_after: int | None, wanted: str) -> None:
    """A function word, an unfinished phrase, or a pause or filler between."""
    assert repeated(said, language, pause_after) == wanted


def test_a_pause_at_a_comma_is_no_hesitation() -> None:
    """ "A long, (pause) long time": unsure, so no repetition; with a filler it is one."""
    assert repeated("a long, long time", "en", 1) == "-"
    assert repeated("a long, um, long time", "en") == "long,"
