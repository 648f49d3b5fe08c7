"""Checkpoints go to the original's format and back unharmed."""

import numpy as np
import pytest
import torch
from model import Detector
from preprocess import to_tensor
from safetensors.torch import load_file
from tools.architecture import infer_config
from tools.convert import (
    read_original,
    to_original_names,
    to_transformers_names,
    write_folder,
    write_original,
)
from weights import PRESETS, Source

DRAWN = PRESETS["drawn"].location


@pytest.fixture(scope="module")
def stored():
    """The drawn weights' tensors under transformers' stored names."""
    from pathlib import Path

    return load_file(Path(DRAWN) / "model.safetensors")


@pytest.fixture(scope="module")
def there_and_back(tmp_path_factory):
    """Drawn weights → .pth → folder."""
    from pathlib import Path

    folder = tmp_path_factory.mktemp("converted")
    write_original(Path(DRAWN), folder / "model.pth")
    write_folder(folder / "model.pth", folder / "back", DRAWN, text_heads=4)
    return folder


def test_names_have_the_originals_form(stored):
    """Spot checks against names that groundingdino-py 0.4.0 prints."""
    names = to_original_names(stored, 2)
    for name in [
        "backbone.0.layers.0.blocks.1.attn.qkv.weight",
        "backbone.0.layers.0.blocks.1.attn.relative_position_bias_table",
        "backbone.0.norm1.weight",
        "input_proj.0.0.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
        "transformer.encoder.fusion_layers.1.attn.values_l_proj.bias",
        "transformer.encoder.fusion_layers.0.gamma_v",
        "transformer.encoder.text_layers.0.self_attn.in_proj_weight",
        "transformer.encoder.layers.0.self_attn.sampling_offsets.weight",
        "transformer.decoder.layers.1.ca_text.in_proj_bias",
        "transformer.decoder.layers.1.catext_norm.weight",
        "transformer.decoder.ref_point_head.layers.1.weight",
        "transformer.decoder.bbox_embed.1.layers.2.bias",
        "bbox_embed.1.layers.2.bias",
        "transformer.tgt_embed.weight",
        "transformer.level_embed",
        "feat_map.weight",
    ]:
        assert name in names, name
    assert names["transformer.decoder.layers.0.self_attn.in_proj_weight"].shape == (288, 96)


def test_round_trip_is_exact(stored):
    """Every tensor that matters comes back, bit for bit, under its own name."""
    back = to_transformers_names(to_original_names(stored, 2))
    assert set(back) == {name for name in stored if "swin.layernorm" not in name}
    for name, tensor in back.items():
        assert torch.equal(tensor, stored[name]), name


def test_the_other_round_trip_is_exact(stored):
    """From the original's side too."""
    original = to_original_names(stored, 2)
    again = to_original_names(to_transformers_names(original), 2)
    assert set(again) == set(original)
    assert all(torch.equal(again[name], original[name]) for name in original)


def test_a_converted_folder_detects_the_same(detector, there_and_back, shapes):
    """The architecture is read off the shapes; the answers do not change."""
    converted = Detector(Source("back", str(there_and_back / "back")), "cpu", "float32")
    prompt = [(101, 2417, 4418, 1012, 2630, 2675, 1012, 102)]
    pixels = to_tensor(shapes, detector.image_processor)
    (expected,), (got,) = detector.detect(pixels, prompt), converted.detect(pixels, prompt)
    np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-6)
    np.testing.assert_allclose(got.token_probabilities, expected.token_probabilities, atol=1e-6)


def test_the_releases_wrapping_is_read(stored, tmp_path):
    """The released files say {"model": {"module.…"}} and carry tables that follow from the
    architecture."""
    original = {f"module.{name}": tensor for name, tensor in to_original_names(stored, 2).items()}
    original["module.bert.embeddings.position_ids"] = torch.arange(256)
    original["module.bert.pooler.dense.bias"] = torch.zeros(64)
    original["module.backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(1)
    torch.save({"model": original}, tmp_path / "release.pth")
    assert len(to_transformers_names(read_original(tmp_path / "release.pth"))) == 347


def test_architecture_is_read_off_the_shapes(stored):
    """What was trained is what is inferred, the BERT's heads aside."""
    config = infer_config(to_transformers_names(to_original_names(stored, 2)), 4)
    assert (config.d_model, config.num_queries, config.num_feature_levels) == (96, 30, 3)
    assert (config.encoder_layers, config.decoder_layers) == (2, 2)
    assert (config.encoder_attention_heads, config.encoder_ffn_dim) == (4, 192)
    swin = config.backbone_config
    assert (swin.embed_dim, swin.depths, swin.num_heads) == (32, [2, 2, 2], [1, 2, 4])
    assert (swin.window_size, swin.mlp_ratio, swin.out_indices) == (8, 3.0, [2, 3])


@pytest.mark.parametrize(
    "name",
    [
        "unheard.weight",
        "bertha.weight",
        "transformer.encoder.layers.x.norm1.weight",
        "input_proj2.0",
    ],
)
def test_unknown_tensors_are_refused(name):
    """A checkpoint of something else is not half converted."""
    with pytest.raises(ValueError, match="belongs to no known Grounding DINO"):
        to_transformers_names({name: torch.zeros(1)})
    with pytest.raises(ValueError, match="belongs to no known Grounding DINO"):
        to_original_names({name: torch.zeros(1)}, 2)
