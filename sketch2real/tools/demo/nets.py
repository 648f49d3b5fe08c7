"""The demo pipeline's parts, small enough for one processor core: 20 million parameters in all."""

import torch
from diffusers import AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_CHANNELS = 12
WIDTHS = (96, 144, 192)
HEADS = 6
TEXT_WIDTH = 128
_LEVELS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")


def vae() -> AutoencoderTiny:
    """256 px to 32 × 32 × 12 and back. Without norms, which lose how light and how colourful a
    picture is; a step of training takes a third of AutoencoderKL's time."""
    width = 32
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=(3, 3, 3, 1),
        latent_channels=LATENT_CHANNELS,
    )


def unet() -> UNet2DConditionModel:
    """Attention only where the picture is 16 × 16 and 8 × 8. The words also reach every layer with
    the time embedding, the shortest way for the colour of a single thing."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=_LEVELS,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
        norm_num_groups=16,
    )


def controlnet() -> ControlNetModel:
    """Reads the lines. Trained together with the UNet from the start, so its "zero" convolutions
    (Zhang et al. 2023, §3.1, made to spare a finished UNet) begin with values: gradient flows at
    once. Its sketch encoder must reduce by as much as the VAE: four widths are a factor of 8.
    """
    net = ControlNetModel(
        in_channels=LATENT_CHANNELS,
        down_block_types=_LEVELS,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
        norm_num_groups=16,
        conditioning_embedding_out_channels=(8, 16, 32, 64),
    )
    for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        nn.init.normal_(layer.weight, std=0.5 / layer.weight.shape[1] ** 0.5)
    last = net.controlnet_cond_embedding.conv_out.weight
    nn.init.normal_(last, std=1 / (9 * last.shape[1]) ** 0.5)
    return net


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers: which colour belongs to which thing."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR and trailing steps (Lin et al. 2024), which few-step
    sampling from pure noise needs."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def as_input(pictures: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 or float in 0 to 255 as (N, 3, H, W) float32 in -1 to 1."""
    exact = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    return exact.contiguous(memory_format=torch.channels_last)
