"""prompt_pieces.py: nothing is lost between the pieces, and what is cut is cut between words."""

from hypothesis import given
from hypothesis import strategies as st
from prompt_pieces import longest_start, pieces


def tokens(text: str) -> int:
    """As a byte tokenizer counts: three for a letter beyond ASCII."""
    return len(text.replace(" ", "").encode())


@given(st.text(st.sampled_from("abc  日🐈"), max_size=80))
def test_pieces_hold_all_words_in_order(text: str) -> None:
    """Each within the room; a word that is too long for one is divided."""
    found = pieces(text, tokens, 12)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(tokens(piece) <= 12 for piece in found)
    assert len(found) >= 1
    if tokens(text) <= 12:
        assert found == [text.strip()]


@given(st.text(st.sampled_from("abc  日"), max_size=60), st.integers(0, 40))
def test_the_longest_start_that_fits(text: str, room: int) -> None:
    """It fits, begins the text and ends with a whole word, unless the first alone is too long."""
    start = longest_start(text, lambda part: tokens(part) <= room)
    assert tokens(start) <= room
    assert text.startswith(start) or text.lstrip().startswith(start)
    if tokens(text) <= room:
        assert start == text.strip() or start == text
    first = (text.split() or [""])[0]
    if tokens(first) <= room:
        assert start.split() == text.split()[: len(start.split())]
