"""Whisper's large matrices in int8: close to float32, a part of the memory."""

from pathlib import Path

import int8
import pytest
import torch
import weights
from torch import nn
from transformers import WhisperConfig
from whisper import Whisper

pytestmark = pytest.mark.skipif(not int8.is_possible(), reason="needs a processor with VNNI")


def tiny() -> Whisper:
    """Few and small layers; rows of very different sizes."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=9000, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    model = Whisper(config).eval()
    with torch.no_grad():
        for table in (model.encoder.embed_positions, model.decoder.embed_positions):
            table.weight.normal_(0, 0.02)
        model.proj_out.weight.normal_(0, 0.02)
        model.proj_out.weight.mul_(torch.logspace(-3, 1, 9000)[:, None])
    return model


def logits(model: Whisper, mel: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of the token after each."""
    states, _ = model.decoder(tokens, model.decoder.cross(model.encoder(mel)))
    made: torch.Tensor = model.proj_out(states)
    return made


def stored_bytes(model: nn.Module) -> int:
    """Of what the module holds as parameters, buffers and packed weights."""
    total = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    for module in model.modules():
        if isinstance(module, int8.Linear):
            weight, _ = torch.ops.quantized.linear_unpack(module.packed)
            total += weight.numel() + (0 if module.bias is None else module.bias.nbytes)
    return total


@torch.inference_mode()
def test_each_row_has_a_scale_of_its_own() -> None:
    """A row of small weights keeps its digits beside a row of large ones: 3 % of its own size."""
    torch.manual_seed(0)
    source = nn.Linear(256, 4)
    source.weight.copy_(torch.randn(4, 256) * torch.tensor([[1e-4], [1e-2], [1.0], [100.0]]))
    source.bias.zero_()
    inputs = torch.randn(50, 256)
    wrong = (int8.Linear(source)(inputs) - source(inputs)).abs().amax(0)
    size = source(inputs).abs().amax(0)
    assert (wrong / size < 0.03).all()


@torch.inference_mode()
def test_each_token_has_a_scale_of_its_own() -> None:
    """A small token keeps its digits beside a large one: 3 % of its own size."""
    torch.manual_seed(0)
    source = nn.Linear(256, 64, bias=False)
    inputs = torch.randn(2, 256) * torch.tensor([[1000.0], [1.0]])
    wrong = (int8.Linear(source)(inputs) - source(inputs)).norm(dim=-1)
    assert (wrong / source(inputs).norm(dim=-1) < 0.03).all()


@torch.inference_mode()
def test_a_token_keeps_its_vector() -> None:
    """Each value within half a step of its row, also beyond the rows that are done at once."""
    source = nn.Embedding(9000, 16)
    indices = torch.tensor([[0, int8._ROWS - 1, int8._ROWS, 8999]])
    step = source.weight.abs().amax(1)[indices] / 127
    wrong = (int8.Embedding(source)(indices) - source(indices)).abs().amax(-1)
    assert (wrong <= 0.5001 * step).all()


@torch.inference_mode()
def test_a_converted_model_answers_as_before() -> None:
    """From half precision: nothing large stays in float, and the logits differ by 2 %."""
    model = tiny()
    mel, tokens = torch.randn(2, 80, 3000), torch.tensor([[1, 2, 3], [4, 5, 6]])
    before = logits(model, mel, tokens)
    whole = stored_bytes(model)
    model.half()
    int8.convert(model)
    after = logits(model, mel, tokens)
    assert (after - before).norm() < 0.02 * before.norm()
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    # The table of tokens is stored twice, once for each of its uses: half of float32's.
    positions = model.encoder.embed_positions.weight.nbytes
    assert stored_bytes(model) - positions < 0.55 * (whole - positions)


def test_a_processor_gets_int8_where_it_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unset it is int8 with VNNI, else float32; a GPU is refused it."""
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    monkeypatch.delenv("DTYPE", raising=False)
    assert weights.choose().is_int8
    monkeypatch.setenv("DTYPE", "float32")
    assert not weights.choose().is_int8
    monkeypatch.delenv("DTYPE")
    monkeypatch.setattr(int8, "is_possible", lambda: False)
    without = weights.choose()
    assert (without.is_int8, without.dtype) == (False, torch.float32)
    monkeypatch.setenv("DTYPE", "int8")
    with pytest.raises(ValueError, match="DTYPE int8 is for processors with VNNI, not for cpu"):
        weights.choose()
