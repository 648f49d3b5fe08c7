"""Numbers, money, years, titles and abbreviations: what is read right is right, however written."""

import pytest
import reading
import spoken_forms


def errors(text: str, said: str, language: str) -> tuple[int, list[str]]:
    """How many words are wrong, and which."""
    found = reading.compare(reading.reference_words(text), reading.tokens_of(said), 10.0, language)
    wrong = [*found["omissions"], *found["insertions"], *found["substitutions"]]
    return len(wrong), wrong


SAME = [
    ("en", "in 1984 he", "in nineteen eighty-four he"),
    ("en", "in nineteen eighty-four he", "in 1984 he"),
    ("en", "in 1984, he", "in one thousand nine hundred and eighty-four he"),
    ("en", "since 1905", "since nineteen oh five"),
    ("en", "in 1900 and 2005", "in nineteen hundred and two thousand five"),
    ("en", "by 2026", "by twenty twenty-six"),
    ("en", "the 1980s were", "the nineteen eighties were"),
    ("en", "101 dalmatians", "a hundred and one dalmatians"),
    ("en", "one hundred one dalmatians", "101 dalmatians"),
    ("en", "1,984 people", "one thousand nine hundred eighty-four people"),
    ("en", "room 305", "room three oh five"),
    ("en", "pay $5 now", "pay five dollars now"),
    ("en", "pay five dollars now", "pay $5 now"),
    ("en", "it is $5.50.", "it is five dollars and fifty cents"),
    ("en", "it is $5.50.", "it is five fifty"),
    ("en", "£3.5 million was", "three point five million pounds was"),
    ("en", "for $5 million", "for five million dollars"),
    ("en", "about 50% of", "about fifty per cent of"),
    ("en", "about 50 % of", "about fifty percent of"),
    ("en", "at 10:30 we", "at half past ten we"),
    ("en", "at 10:30 we", "at ten thirty we"),
    ("en", "at 9:05 we", "at nine oh five we"),
    ("en", "the 21st of", "the twenty-first of"),
    ("en", "Henry VIII was", "Henry the eighth was"),
    ("en", "Mr. and Mrs. Dashwood", "mister and missus Dashwood"),
    ("en", "Dr Smith of St. James", "doctor Smith of saint James"),
    ("en", "e.g. a dog", "for example a dog"),
    ("en", "the U.S. army", "the US army"),
    ("en", "3/4 of it", "three quarters of it"),
    ("en", "0.5 or 3.14", "point five or three point one four"),
    ("en", "a 5kg bag", "a five kilo bag"),
    ("en", "10-15 days", "ten to fifteen days"),
    ("en", "call 0171 4", "call oh one seven one four"),
    ("en", "bread & butter", "bread and butter"),
    ("en", "an ice cream", "an icecream"),
    ("de", "im Jahr 1984 war", "im Jahr neunzehnhundertvierundachtzig war"),
    ("de", "um 10:30 Uhr", "um zehn Uhr dreißig"),
    ("de", "um 10:30 kam", "um halb elf kam"),
    ("de", "am 3. Mai", "am dritten Mai"),
    ("de", "3,5 Liter für 2 €", "drei Komma fünf Liter für zwei Euro"),
    ("de", "z.B. 1.000 Leute", "zum Beispiel tausend Leute"),
    ("fr", "M. Dupont a 80 ans", "monsieur Dupont a quatre-vingts ans"),
    ("fr", "en 1984 et 10 000 fois", "en mille neuf cent quatre-vingt-quatre et dix mille fois"),
    ("fr", "le 1er mai à 10h30", "le premier mai à dix heures trente"),
    ("fr", "21 pommes", "vingt et une pommes"),
    ("es", "La Sra. tiene 21 años", "La señora tiene veintiún años"),
    ("es", "3,5 en 1984", "tres coma cinco en mil novecientos ochenta y cuatro"),
    ("it", "nel 1984", "nel millenovecentottantaquattro"),
    ("pt", "2 casas", "duas casas"),
    ("nl", "25 euro", "vijfentwintig euro"),
    ("sv", "1984", "nittonhundraåttiofyra"),
    ("ru", "25 лет", "двадцать пять лет"),
    ("tr", "25 kişi", "yirmi beş kişi"),
]


@pytest.mark.parametrize(("language", "text", "said"), SAME)
def test_a_right_reading_is_right(language: str, text: str, said: str) -> None:
    """No word of either side is wrong."""
    assert errors(text, said, language) == (0, [])


@pytest.mark.parametrize(
    ("language", "text", "said", "wrong"),
    [
        ("en", "in 1984 he", "in nineteen eighty-five he", 3),
        ("en", "pay $5 now", "pay five now", 1),
        ("en", "pay $5 now", "pay five euros now", 2),
        ("en", "Mr. Smith", "doctor Smith", 1),
        ("en", "two and 2", "2 and three", 1),
        ("de", "der 3. Mai", "der vierte Mai", 1),
        ("xx", "in 1984", "in nineteen eighty four", 3),
    ],
)
def test_a_wrong_reading_is_wrong(language: str, text: str, said: str, wrong: int) -> None:
    """Another number, another currency, a title for another; a language without numbers."""
    assert errors(text, said, language)[0] == wrong


def test_hostile_tokens_end_soon() -> None:
    """Long digits, many separators and odd digits have few readings, and raise nothing."""
    for token in (
        "9" * 5000,
        "1," * 3000,
        "0" * 39,
        "١٢٣",
        "²",
        "1/0",
        "99:99",
        "$" * 400,
        "1-" * 90,
    ):
        for language in ("en", "de", "fr", "xx", "ja", "ar"):
            assert len(spoken_forms.readings(token, language)) <= 400


def test_a_long_gap_is_left_to_the_plain_comparison() -> None:
    """Three thousand words against as many others: no block is searched in so many pairs."""
    found = reading.compare(["a1"] * 3000, ["b"] * 3000, 10.0, "en")
    assert found["correct_words"] == 0
