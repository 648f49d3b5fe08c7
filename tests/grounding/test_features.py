"""Backbone outputs that are handed over instead of computed."""

import torch
from features import LRUCache, Supplied, blocks, padded, rows_of
from hypothesis import given
from hypothesis import strategies as st


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


@given(st.lists(st.sampled_from((101, 102, 1012, 1029, 7, 8, 9)), max_size=30))
def test_labels_see_each_other_as_in_transformers(middle):
    """Blocks between delimiters, wherever they stand, as the installed transformers has them."""
    from transformers.models.grounding_dino import modeling_grounding_dino as upstream

    ids = (101, *middle, 102)
    special = torch.tensor(upstream.SPECIAL_TOKENS)
    sees, positions = upstream.generate_masks_with_special_tokens_and_transfer_map(
        torch.tensor([ids]), special
    )
    ours = blocks(ids, set(upstream.SPECIAL_TOKENS))
    assert torch.equal(ours[0], sees[0])
    assert torch.equal(ours[1], positions[0])
