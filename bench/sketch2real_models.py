"""The presets' architectures at full size with random weights, saved as folders to load.

Sizes are those of the published configurations: Stable Diffusion 1.5 and XL with ControlNets of the
same width, FLUX.2-klein-4B (diffusers' conversion script). klein's text encoder is thin, as it has
no part in a picture: its words are embedded once. "klein-whole" has the real one.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    ControlNetModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from gpu_figures import build
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.,:;'"]
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), START, END]
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def save(name: str, folder: Path, device: str, dtype: torch.dtype) -> Path:
    """Make preset `name` (of `MAKERS`) on `device` and save it to `folder`."""
    pipe = build(MAKERS[name], dtype, device)
    pipe.to(dtype).save_pretrained(folder)
    return folder


def save_tiny(name: str, folder: Path) -> None:
    """The same classes, as small as the tests use them."""
    import tiny  # noqa: PLC0415 -- it needs newer libraries than the full sizes do

    makers = {"klein": tiny.klein, "sdxl-scribble": tiny.sdxl, "sd15-scribble": tiny.sd15}
    makers[name](folder)


def _sd15() -> StableDiffusionControlNetPipeline:
    return StableDiffusionControlNetPipeline(
        vae=_vae(),
        text_encoder=_clip(768, 12, CLIPTextModel),
        tokenizer=_tokenizer(),
        unet=UNet2DConditionModel(sample_size=64, **SD15),
        controlnet=ControlNetModel(**SD15),
        scheduler=_made_on_cpu(
            UniPCMultistepScheduler, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> StableDiffusionXLControlNetPipeline:
    up = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    return StableDiffusionXLControlNetPipeline(
        vae=_vae(),
        text_encoder=_clip(768, 12, CLIPTextModel),
        text_encoder_2=_clip(1280, 32, CLIPTextModelWithProjection),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=UNet2DConditionModel(sample_size=128, up_block_types=up, **SDXL),
        controlnet=ControlNetModel(**SDXL),
        scheduler=_made_on_cpu(
            EulerDiscreteScheduler, beta_schedule="scaled_linear", timestep_spacing="trailing"
        ),
    )


THIN = Qwen3Config(
    vocab_size=64,
    hidden_size=2560,
    intermediate_size=64,
    num_hidden_layers=27,  # the pipeline reads the 9th, 18th and 27th
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
QWEN3_4B = Qwen3Config(
    vocab_size=151936,
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)


def _klein(encoder: Qwen3Config = THIN) -> Flux2KleinPipeline:
    letters = [*"abcdefghijklmnopqrstuvwxyzTKGNM.,:;'Ġ", "<|endoftext|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(
        vocab={letter: index for index, letter in enumerate(letters)},
        merges=[],
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    return Flux2KleinPipeline(
        scheduler=_made_on_cpu(FlowMatchEulerDiscreteScheduler, use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(),
        text_encoder=Qwen3ForCausalLM(encoder),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            in_channels=128,
            num_layers=5,
            num_single_layers=20,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=7680,
            timestep_guidance_channels=256,
            mlp_ratio=3.0,
            axes_dims_rope=(32, 32, 32, 32),
            rope_theta=2000,
            guidance_embeds=False,
        ),
        is_distilled=True,
    )


def _tokenizer() -> CLIPTokenizer:
    """Letters, each within and at the end of a word, and CLIP's two special tokens."""
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(TOKENS)},
        merges=[],
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=77,
    )


def _made_on_cpu(kind: Callable[..., Any], **options: Any) -> Any:
    """A scheduler; it goes through numpy, which knows neither cards nor bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), unset_fake_temporarily():
            return kind(**options)
    finally:
        torch.set_default_dtype(before)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        force_upcast=False,  # as in the VAE that the SDXL preset takes for float16
    )


def _clip(width: int, layers: int, kind: type) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            projection_dim=width,
            bos_token_id=TOKENS.index(START),
            eos_token_id=TOKENS.index(END),
            pad_token_id=TOKENS.index(END),
        )
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "klein": _klein,
    "klein-whole": partial(_klein, QWEN3_4B),
    "sdxl-scribble": _sdxl,
    "sd15-scribble": _sd15,
}
