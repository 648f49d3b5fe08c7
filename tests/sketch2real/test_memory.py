"""memory.py, speed.py and the loading, by the bytes that are alive: what fails leaves nothing."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import controlnet
import klein
import memory
import numpy as np
import pipeline
import pytest
import speed
import torch
from batcher import Batcher
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from errors import OutOfMemory
from live_bytes import LiveBytes
from PIL import Image
from request import OnStep, Painter, Request
from safetensors.torch import save_file
from weights import choose


def load(folder: Path) -> Any:
    return pipeline.load(choose(str(folder), 0.0, has_bfloat16=False), "cpu", torch.float32, 0.0)


def request(*seeds: int) -> Request:
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[20:40, [10, 50]] = 255
    return Request(Image.fromarray(lines), "", None, 1.0, 3, 3.0, seeds)


def models(pipe: Any) -> list[torch.nn.Module]:
    """Its parts with weights; a reference to its components would keep its scheduler alive."""
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def tables_only(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim < 2


@pytest.mark.parametrize("name", ["sd15", "klein"])
async def test_nothing_of_a_failed_batch_is_alive_when_it_is_tried_again(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two together do not fit in the decoder: their latents, the scheduler's memory, the frames of
    the exception and the previews' latents are gone before the first is painted alone."""
    painter = load(folders[name])
    painter.together = 2
    painter.paint([request(1)], lambda _step: None)  # embeds the words, which are kept
    decode, whole = painter._pipe.vae.decode, painter.paint
    counted = LiveBytes(models(painter._pipe))
    alive: list[tuple[int, int]] = []

    def overflowing(latents: torch.Tensor, **options: Any) -> Any:
        if len(latents) > 1:
            assert counted.live > 0
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, **options)

    def watched(requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        # A fresh scheduler's tables are small, on the processor, and no picture.
        tables = sum(x.nbytes for x in vars(painter._pipe.scheduler).values() if tables_only(x))
        alive.append((len(requests), max(0, counted.live - tables)))
        with counted:
            return whole(requests, on_step)

    monkeypatch.setattr(painter._pipe.vae, "decode", overflowing)
    monkeypatch.setattr(painter, "paint", watched)
    shown: list[Image.Image] = []
    pictures = await Batcher(painter).paint(request(1, 2), lambda *_: None, shown.append)
    assert alive[:2] == [(2, 0), (1, pytest.approx(0, abs=4096))]
    assert len(pictures) == 2
    assert shown


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_every_allocators_words_are_known(words: str) -> None:
    """CUDA's runtime, its libraries and the processor each say it differently."""
    assert memory.is_shortage(RuntimeError(words))
    assert not memory.is_shortage(RuntimeError("expected 4 channels"))
    assert not memory.is_shortage(ValueError(words))


def test_a_part_without_attention_has_nothing_to_fuse() -> None:
    """The demo weights' VAE is made of convolutions alone."""
    speed.fuse(AutoencoderTiny())


def test_fused_projections_take_no_more_memory(folders: dict[str, Path]) -> None:
    """The separate ones go; the picture is the same."""
    painter = load(folders["sd15"])
    before = np.asarray(painter.paint([request(5)], lambda _step: None)[0], float)
    pipe = painter._pipe
    sizes = []
    for _ in range(2):
        sizes.append(sum(weight.nbytes for weight in pipe.unet.parameters()))
        speed.fuse(pipe.unet)
        speed.fuse(pipe.vae)
    assert any("to_qkv" in name for name, _ in pipe.unet.named_parameters())
    assert sizes[0] == sizes[1]
    after = np.asarray(painter.paint([request(5)], lambda _step: None)[0], float)
    assert np.abs(before - after).max() <= 1


def test_four_are_decoded_in_the_memory_of_one() -> None:
    """One at a time always; in tiles too where not even one fits."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, sample_size=64,
    ).eval()  # fmt: skip
    vae.enable_slicing()
    free = 2**40
    speed.decode_by_free_memory(vae, lambda: free)
    vae.tile_sample_min_size, vae.tile_latent_min_size = 128, 64
    latents = torch.randn(4, 4, 128, 128)

    def peak(some: torch.Tensor) -> int:
        with torch.no_grad(), LiveBytes([vae]) as counted:
            vae.decode(some, return_dict=False)
        return counted.peak

    one, four = peak(latents[:1]), peak(latents)
    outputs = 4 * 3 * 256 * 256 * 4
    assert four <= one + 2 * outputs
    free = 2**20
    assert peak(latents[:1]) < 0.6 * one
    free = 2**40
    assert peak(latents[:1]) == one


def test_the_distilled_unet_takes_the_memory_of_its_file(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not built at random in float32 before its weights are read."""
    base = UNet2DConditionModel.from_pretrained(folders["sdxl"], subfolder="unet")
    weights = {name: value.half() for name, value in base.state_dict().items()}
    file = tmp_path / "unet.safetensors"
    save_file(weights, file)
    monkeypatch.setattr(controlnet, "hf_hub_download", lambda *_: str(file))
    preset = choose(str(folders["sdxl"]), 0.0, has_bfloat16=False)
    with LiveBytes() as counted:
        unet = controlnet._distilled_unet(preset, torch.float16)
    assert counted.peak <= 1.05 * sum(value.nbytes for value in weights.values())
    assert {weight.dtype for weight in unet.parameters()} == {torch.float16}
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())


@pytest.mark.parametrize("name", ["sdxl", "klein"])
def test_out_of_memory_at_set_up_falls_back_to_off_loading(
    name: str,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line in the log, nothing left of the first attempt, and the same picture."""
    tried: list[Any] = []
    alive: list[Any] = []

    def full(painter: Painter) -> int:
        if not tried:
            tried.append(weakref.ref(painter))
            raise OutOfMemory("Cannot paint 1024 × 1024: out of memory")
        alive.append(tried[0]())
        return 0

    monkeypatch.setattr(pipeline, "warm", full)
    preset = choose(str(folders[name]), 0.0, has_bfloat16=False)
    painter: Any = pipeline.load_and_warm(preset, "cpu", torch.float32, 0.0, should_warm=True)
    assert speed.is_offloaded(painter._pipe)
    assert "out of memory at set-up" in capsys.readouterr().out
    assert alive == [None]
    usual = load(folders[name]).paint([request(5)], lambda _step: None)[0]
    again = painter.paint([request(5)], lambda _step: None)[0]
    assert np.abs(np.asarray(usual, float) - np.asarray(again, float)).max() <= 1


def test_a_cancelled_painter_is_off_loaded_again(folders: dict[str, Path]) -> None:
    """What an interrupted call had moved to the GPU goes back."""
    preset = choose(str(folders["sdxl"]), 0.0, has_bfloat16=False)
    painter: Any = pipeline.load(preset, "cpu", torch.float32, 0.0, offload=True)
    before = list(painter._pipe._all_hooks)

    def cancel(_step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        painter.paint([request(5)], cancel)
    assert not set(before) & set(painter._pipe._all_hooks)


@pytest.mark.parametrize(
    ("memory_gib", "is_kept", "place"),
    [(0.0, False, "cpu"), (8.0, False, "cpu"), (16.0, False, "meta"), (23.6, True, "meta")],
)
def test_kleins_encoder_is_loaded_once_and_where_it_runs(
    memory_gib: float,
    is_kept: bool,
    place: str,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One load for all constant words, straight to its device; kept on a card of 24 GB, which
    reports 23.6 GiB; on the processor where the card is too small for it alone."""
    places: list[dict[str, str]] = []

    class Encoder:
        """In place of the pipeline that embeds words."""

        tokenizer = None

        @classmethod
        def from_pretrained(cls, *_: object, **__: object) -> "Encoder":
            return cls()

        def encode_prompt(self, _prompt: str) -> list[torch.Tensor]:
            return [torch.zeros(1, 2, 2)]

    def read(_source: str, *, device_map: dict[str, str], **_: Any) -> None:
        places.append(device_map)

    monkeypatch.setattr(klein.AutoModelForCausalLM, "from_pretrained", read)
    monkeypatch.setattr(klein.diffusers, "Flux2KleinPipeline", Encoder)
    monkeypatch.setattr(speed, "place", lambda *_, **__: None)
    preset = choose(str(folders["klein"]), 0.0, has_bfloat16=False)
    device = "meta" if memory_gib else "cpu"
    painter: Any = pipeline.load(preset, device, torch.float32, memory_gib)
    assert places == [{"": place}]
    assert (painter._encoder is not None) is is_kept
    painter._embed(["a cat", "a dog", "a bird"])
    assert len(places) == (1 if is_kept else 2)
