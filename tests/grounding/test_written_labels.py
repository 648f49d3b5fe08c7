"""Labels as people write them: 300 of them, and which of their words a box must answer to."""

import pytest
from errors import InvalidInput
from labels import parse_labels
from prompt import read_labels, tokenize

# A label and its words in the tokenizer's spelling: without accents, in lower case.
PHRASES = {
    "red circle": "red circle",
    "traffic light": "traffic light",
    "coffee cup": "coffee cup",
    "t-shirt": "t shirt",
    "dog's tail": "dog tail",
    "women’s shoes": "women shoes",
    "café table": "cafe table",
    "3 cats": "3 cats",
    "salt & pepper": "salt pepper",
    "tv/monitor": "tv monitor",
    "naïve_art": "naive art",
    "rock-n-roll": "rock n roll",
}
# Marks, emphasis, articles and symbols that name nothing.
WRITTEN = (
    "{}", '"{}"', "'{}'", "({})", "[{}", "{}!", "{}?", "{}:", "#{}", "“{}”", "„{}“", "«{}»", "‹{}›",
    "「{}」", "{}…", "*{}*", "**{}**", "`{}`", "<{}>", "the {}", "A {}", "an  {}", "{} (!)",
    "- {} -",
)  # fmt: skip
# By hand; "" is a label that is not known as a whole, and is never read by half.
OTHERS = {
    "a red car on the left": "red car on left",
    "person wearing a hat": "person wearing hat",
    "the": "the",
    "Cat (small)": "cat small",
    "U.S. flag": "u s flag",
    "C++ book": "c book",
    "50% sign": "50 sign",
    "$5 bill": "5 bill",
    "iPhone®": "iphone",
    "ｒｅｄ　ｃｉｒｃｌｅ": "red circle",
    "r\u200bed\u00adcircle": "redcircle",
    "Ⅳ sign": "iv sign",
    "e-mail": "e mail",
    "mother-in-law": "mother in law",
    "o'clock": "o",
    "rotes Auto": "rotes auto",
    "Straße": "straße",
    "Fußgänger": "fußganger",
    "Schlüssel": "schlussel",
    "chien": "chien",
    "l'arbre": "l",
    "voiture bleue": "voiture bleue",
    "œuf": "œuf",
    "niño": "nino",
    "círculo rojo": "circulo rojo",
    "¿gato?": "gato",
    "maçã": "maca",
    "gatto nero": "gatto nero",
    "świeca": "swieca",
    "köpek": "kopek",
    "кошка": "кошка",
    "красный круг": "красныи круг",
    "γάτα": "γατα",
    "कुत्ता": "कतता",
    "قطة": "قطة",
    "人": "人",
    "山": "山",
    "蓝 circle": "",
    "蓝circle": "",
    "red 猫": "",
    "猫": "",
    "红色圆圈": "",
    "赤い丸": "",
    "고양이": "",
    "🚗": "",
    "🐶🐱": "",
}


def read(tokenizer, label):
    """The words of one label, joined."""
    (parsed,) = parse_labels('["' + label.replace("\\", "\\\\").replace('"', '\\"') + '"]', "")
    (tokens,) = tokenize([parsed.text], tokenizer)
    return " ".join(tokenizer.decode(list(tokens.ids[a:b])) for a, b in tokens.words)


@pytest.mark.parametrize("written", WRITTEN)
def test_marks_are_no_words(tokenizer, written):
    """Whatever stands around or inside a label, only its words must score."""
    for phrase, words in PHRASES.items():
        assert read(tokenizer, written.format(phrase)) == words, written.format(phrase)


@pytest.mark.parametrize("label", OTHERS)
def test_every_word_counts_or_the_label_is_ignored(tokenizer, label):
    """In many languages: a label with a word that the tokenizer does not know is not searched."""
    assert read(tokenizer, label) == OTHERS[label]


def test_what_is_left_out_is_said(tokenizer):
    """An emoji beside words changes nothing but is reported; beside no word it is ignored."""
    query = read_labels(["🐶 dog", "cat", "蓝 circle", "🚗", "red 🔴 circle"], tokenizer, 256)
    assert dict(query.read_as) == {0: ("dog",), 4: ("red circle",)}
    assert query.ignored == {2, 3}
    assert [chunk.label_indices for chunk in query.chunks] == [(0, 1, 4)]
    with pytest.raises(InvalidInput, match="words that the model knows"):
        read_labels(["蓝 circle"], tokenizer, 256)


@pytest.mark.parametrize(
    "written",
    ["red-circle", '"red circle"', "red circle!", "the red circle", "Red_Circle", "red/circle",
     "“red circle”", "ｒｅｄ　ｃｉｒｃｌｅ", "red circle's", "🔴 red circle"],
)  # fmt: skip
def test_a_written_label_finds_its_thing(call, shapes_png, written):
    """Whatever its marks: one red circle, under the label as it was written."""
    (found,) = call(shapes_png, text_queries=written, nms=0.5).detections
    assert found["label"] == " ".join(written.split())
    assert found["box"] == pytest.approx([40, 45, 165, 170], abs=6)


def test_a_label_read_by_half_finds_nothing(call, shapes_png):
    """ "蓝 circle" is a blue one: the red one is no answer, and the label is reported."""
    output = call(shapes_png, text_queries="蓝 circle, blue square")
    assert [d["label"] for d in output.detections] == ["blue square"]
    assert output.queries_ignored == ["蓝 circle"]
