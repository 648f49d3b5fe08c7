"""Backbone outputs that are handed over instead of computed."""

import torch
from features import LRUCache, Supplied, padded, rows_of


def test_a_supplied_value_is_used_once():
    """The model gets what was put there; after that the backbone runs again."""
    module = Supplied(torch.nn.Linear(2, 2))
    module.value = "given"
    assert module(torch.ones(1, 2)) == "given"
    assert module(torch.ones(1, 2)).shape == (1, 2)
    assert module.in_features == 2, "attributes of the backbone stay within reach"


def test_the_cache_computes_once_and_drops_the_oldest():
    """A known key costs nothing; the one not asked for longest goes first."""
    calls = []
    known = LRUCache(capacity=2)
    for key in ["a", "a", "b", "a", "c", "a", "b"]:
        assert known.get(key, lambda key=key: calls.append(key) or key * 2) == key * 2
    assert calls == ["a", "b", "c", "b"]
    known.clear()
    known.get("a", lambda: calls.append("a"))
    assert calls[-1] == "a"


def test_rows_repeat_pictures_and_leave_the_original_alone():
    """The model appends to the lists that it gets: the next pass must not see that."""
    features = torch.arange(2.0).view(2, 1, 1, 1)
    levels = ([(features, features > 0)], [features * 10])
    for rows in ([0, 1], [1, 1, 0]):
        maps, positions = rows_of(levels, rows)
        assert maps[0][0].flatten().tolist() == [float(row) for row in rows]
        assert positions[0].flatten().tolist() == [10.0 * row for row in rows]
        positions.append("more")
        maps.append("more")
    assert len(levels[0]) == len(levels[1]) == 1


def test_padding_is_behind_and_zero():
    """Shorter texts end in zeros, which the attention mask hides."""
    got = padded([torch.ones(1, 2), torch.full((3, 2), 2.0)], 4)
    assert got.shape == (2, 4, 2)
    assert got.sum(dim=(1, 2)).tolist() == [2.0, 12.0]
    assert not got[0, 1:].any()
