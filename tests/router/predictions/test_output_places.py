"""Where an output's files are, and how others are put in their places."""

from __future__ import annotations

from typing import Any

import pytest

from router.predictions.output_files import data_uris, may_hold_files
from router.predictions.output_reader import with_values

URI = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("output", "places"),
    [
        (None, []),
        ("text", []),
        (URI, [()]),
        (f" {URI}", []),
        ("data:text/plain,hello", []),
        ("data:;base64,", [()]),
        ("data:text/plain;charset=utf-8;base64,AAAA", [()]),
        ('data:text/html"><script>;base64,AAAA', []),
        ([URI, "x", {"a": [URI]}], [(0,), (2, "a", 0)]),
        ({"a": {"b": URI}, "c": 1.5, "d": URI}, [("a", "b"), ("d",)]),
    ],
)
def test_places(output: Any, places: list[Any]) -> None:
    """Every data: URI in base64, however deep, in order; nothing else."""
    assert [place for place, _ in data_uris(output)] == places
    if places:
        assert may_hold_files(output)


def test_most_outputs_are_not_walked() -> None:
    """What can hold no file is said to hold none, a very deep output too."""
    deep: Any = URI
    for _ in range(5000):
        deep = [deep]
    for output in ("text", 1, None, {"a": [1, "x data:"]}, deep):
        assert not may_hold_files(output)
    assert [len(place) for place, _ in data_uris(deep)] == [5000]


def test_others_in_their_places() -> None:
    """A copy: the output itself stays as it was, and what is not on the way is not copied."""
    output = {"a": [URI, {"b": URI}], "c": {"d": 1}}
    holed = with_values(output, [(("a", 0), None), (("a", 1, "b"), "x")])
    assert holed == {"a": [None, {"b": "x"}], "c": {"d": 1}}
    assert output == {"a": [URI, {"b": URI}], "c": {"d": 1}}
    assert holed["c"] is output["c"]
    assert with_values(URI, [((), None)]) is None
    assert with_values(output, []) is output
