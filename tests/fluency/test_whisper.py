"""Whisper's network: transformers' numbers, and what a process that serves it does not import."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import demo_weights
import int8
import pytest
import torch
import whisper
from conftest import GOLDEN, PACKAGE
from transformers import WhisperForConditionalGeneration

MOST_MB = 700
"""Of one prediction with whisper-base in int8."""

TOKENS = torch.tensor([[50258, 50259, 50359, 50363, 314, 257], [50258, 50261, 50359, 50363, 5, 6]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@torch.inference_mode()
def test_the_numbers_are_those_of_transformers(dtype: torch.dtype) -> None:
    """Encoder and decoder in one step: equal but for the last digits."""
    source = str(demo_weights.prepare())
    stock: Any = WhisperForConditionalGeneration.from_pretrained(source, dtype=dtype).eval()
    ours = whisper.load(source, dtype)
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0)).to(dtype)
    theirs = stock(mel, decoder_input_ids=TOKENS).logits
    states, _ = ours.decoder(TOKENS, ours.decoder.cross(ours.encoder(mel)))
    off = (ours.proj_out(states) - theirs).float().norm() / theirs.float().norm()
    assert off < (1e-5 if dtype is torch.float32 else 0.02)


@torch.inference_mode()
def test_step_by_step_is_as_at_once() -> None:
    """With the keys and values of the steps before, a token gets the same state; each window its
    own.
    """
    model = whisper.load(str(demo_weights.prepare()), torch.float32)
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(1))
    cross = list(model.decoder.cross(model.encoder(mel)))
    whole, _ = model.decoder(TOKENS, cross)
    states, past = model.decoder(TOKENS[:, :4], cross)
    for step in (4, 5):
        states, past = model.decoder(TOKENS[:, step : step + 1], cross, past)
    assert (states[:, -1] - whole[:, -1]).norm() < 1e-4 * whole[:, -1].norm()
    alone, _ = model.decoder(TOKENS[1:], whisper.part_of(cross, [1]))
    assert (alone[0] - whole[1]).norm() < 1e-4 * whole[1].norm()


def test_weights_in_several_files_load_too(tmp_path: Path) -> None:
    """As large models are stored; the same numbers."""
    source = str(demo_weights.prepare())
    stock: Any = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float16)
    stock.save_pretrained(tmp_path, max_shard_size="60MB")
    assert not (tmp_path / "model.safetensors").exists()
    one, several = (whisper.load(str(at), torch.float16) for at in (source, tmp_path))
    for (name, left), right in zip(
        one.state_dict().items(), several.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name


def test_a_process_that_serves_imports_no_compiler() -> None:
    """A prediction needs neither numba nor torch's compiler nor transformers' models, which are
    150 MB; with int8 it takes at most 700 MB.
    """
    script = """
import json, sys
from pathlib import Path
from pipeline import Options, Pipeline
answer = Pipeline().run(Path(sys.argv[1]), Options(language="en"))
# Not getrusage: that begins with the size of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
peak_mb = int(peak.split()[1]) / 1024
print(json.dumps({"text": answer.transcript, "peak_mb": peak_mb, "modules": list(sys.modules)}))
"""
    made = subprocess.run(
        [sys.executable, "-c", script, str(GOLDEN / "austen-0870.wav")],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "DEVICE": "cpu", "THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(made.stdout.splitlines()[-1])
    assert found["text"]
    heavy = {"numba", "sympy", "torch._dynamo", "transformers.models.whisper.modeling_whisper"}
    assert heavy.isdisjoint(found["modules"])
    if int8.is_possible():
        assert found["peak_mb"] < MOST_MB
