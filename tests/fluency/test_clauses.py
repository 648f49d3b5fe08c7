"""Whether a pause stands between two clauses or within one, by the words around it."""

import disfluency
import pytest


@pytest.mark.parametrize(
    ("before", "after", "position"),
    [
        ("times,", "it", "between"),
        ("home.", "Then", "between"),
        ("home", "because", "between"),
        ("the", "house", "within"),
        ("received", "for", "within"),
    ],
)
def test_where_a_pause_stands(before: str, after: str, position: str) -> None:
    """Punctuation before or a conjunction after: between two clauses."""
    assert disfluency.pause_position(before, after) == position


def test_a_clause_opens_in_english_only() -> None:
    """Portuguese "as" is an article."""
    assert disfluency.pause_position("vi", "as", "pt") == "within"
    assert disfluency.pause_position("know", "as", "en") == "between"


@pytest.mark.parametrize(
    "word",
    [
        "said,”",
        "sagte.“",
        "„gut“,",
        "dit.»",
        "قال،",
        "لماذا؟",
        "कहा।",
        "言った。」",
        "好！』",
        "end.)",
    ],
)
def test_clauses_end_in_every_script(word: str) -> None:
    """At its marks, before closing quotes and behind them."""
    assert disfluency.pause_position(word, "x", "xx") == "between"


@pytest.mark.parametrize("word", ["„gut“", "(end)", "said", "好", "i.e"])
def test_a_quote_alone_ends_no_clause(word: str) -> None:
    """What stands in quotes may be one word of a clause."""
    assert disfluency.pause_position(word, "x", "xx") == "within"
