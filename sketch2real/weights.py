"""Which weights to load, and the settings that suit them.

A preset names its sources on the hub and its defaults. Any other folder or hub id is accepted if
its pipeline class is one of ours; a folder may carry a `sketch2real.json` whose keys replace fields
of the preset of that class, which is how the demo weights set their size of 128 pixels.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from errors import BadWeights

HERE = Path(__file__).parent
OVERRIDES = "sketch2real.json"

INSTRUCTION = (
    "Turn this line drawing into a realistic photograph. Keep the composition and every outline: "
    "each object stays where it is drawn, in its size and shape. Give everything natural colours, "
    "materials, light and shadow. No drawn lines remain."
)
LOOSE_INSTRUCTION = (
    "Make a realistic photograph of what this rough line drawing means to show. Keep the objects "
    "and roughly their places; correct clumsy shapes. Natural colours, materials, light and shadow."
)
FLORENCE = "florence-community/Florence-2-large"
PHOTO_TEMPLATE = "a photograph of {prompt}, natural light, realistic, detailed"
PLAIN_PHOTO = "a photograph, natural light, realistic, detailed"
NEGATIVE = "drawing, sketch, line art, cartoon, monochrome, blurry, text, watermark"


@dataclass(frozen=True)
class Preset:
    """A model and the defaults that suit it.

    name: as `WEIGHTS` names it. source: hub id or folder of the pipeline.
    pipeline: class name in diffusers. controlnet, vae: hub ids that replace parts, "" for none.
    unet_file: "hub id/file" of a distilled UNet that replaces the base one, "" for none.
    scheduler: "" for the source's own, "euler-trailing" (few-step distillations), "unipc".
    instruction: the prompt of an editing model where the request has none, "" otherwise.
    template: the prompt of a ControlNet preset, with {prompt} for the request's own.
    negative: default negative prompt.
    steps, guidance_scale, control_scale: defaults; guidance 1 switches it off.
    is_for_steps_only: distilled for exactly `steps` steps without guidance; others are refused.
    guess_mode: let the ControlNet lead alone when there is no prompt (Zhang et al. 2023, §A).
    paint_area_px: the size that the model was trained for; picture_area_px: the default size of a
    picture. max_area_px: larger pictures are painted in this size and enlarged.
    multiple_px: what both sides must be a multiple of. max_aspect: longer side over shorter.
    pen: stroke width of the lines, as a share of the square root of the area.
    hard_lines: whether strokes are strictly black and white.
    half: "bfloat16" or "float16" on an accelerator.
    needs_gib: GPU memory from which four pictures in the usual sizes are painted together without
    off-loading.
    safety_checker, captioner: hub ids, "" for none.
    licence: of the weights.
    """

    name: str
    source: str
    pipeline: str
    controlnet: str = ""
    vae: str = ""
    unet_file: str = ""
    variant: str = ""
    scheduler: str = ""
    instruction: str = ""
    template: str = "{prompt}"
    negative: str = ""
    steps: int = 20
    guidance_scale: float = 1.0
    control_scale: float = 1.0
    is_for_steps_only: bool = False
    guess_mode: bool = False
    paint_area_px: int = 1024 * 1024
    picture_area_px: int = 1024 * 1024
    max_area_px: int = 1536 * 1536
    multiple_px: int = 64
    max_aspect: float = 16.0
    pen: float = 0.006
    hard_lines: bool = True
    half: str = "float16"
    needs_gib: float = 0.0
    safety_checker: str = "CompVis/stable-diffusion-safety-checker"
    captioner: str = ""
    licence: str = "unknown"

    @property
    def areas_px(self) -> tuple[int, int, int]:
        """The best size for the model, the default size of a picture, the model's largest."""
        return self.paint_area_px, self.picture_area_px, self.max_area_px


# needs_gib: weights + the most that is alive besides (a denoising step of four pictures, or the
# decoder, which takes one at a time) + 0.8 for CUDA's context, workspaces and gaps. The first two
# are counted with fake tensors in the published sizes: bench/sketch2real_memory.py and its rows in
# bench/results, which tests/sketch2real/test_weights.py compares. An H200's are in gpu.jsonl.
KLEIN = Preset(
    name="klein",
    source="black-forest-labs/FLUX.2-klein-4B",
    pipeline="Flux2KleinPipeline",
    instruction=INSTRUCTION,
    steps=4,
    half="bfloat16",
    max_aspect=8.0,
    needs_gib=15.0,  # counted: 12.5; an H200: 11.8, besides the text encoder; no small card
    licence="Apache-2.0",
)

SDXL_SCRIBBLE = Preset(
    name="sdxl-scribble",
    source="stabilityai/stable-diffusion-xl-base-1.0",
    pipeline="StableDiffusionXLControlNetPipeline",
    controlnet="xinsir/controlnet-scribble-sdxl-1.0",
    vae="madebyollin/sdxl-vae-fp16-fix",  # the base VAE overflows in float16
    unet_file="ByteDance/SDXL-Lightning/sdxl_lightning_8step_unet.safetensors",
    variant="fp16",
    scheduler="euler-trailing",
    instruction=PLAIN_PHOTO,
    template=PHOTO_TEMPLATE,
    negative=NEGATIVE,
    steps=8,
    is_for_steps_only=True,
    control_scale=0.8,  # scribble ControlNets over-follow clumsy lines at 1
    needs_gib=11.2,
    captioner=FLORENCE,
    licence="OpenRAIL++-M (base, Lightning), Apache-2.0 (ControlNet)",
)

SD15_SCRIBBLE = Preset(
    name="sd15-scribble",
    source="stable-diffusion-v1-5/stable-diffusion-v1-5",
    pipeline="StableDiffusionControlNetPipeline",
    controlnet="lllyasviel/control_v11p_sd15_scribble",
    scheduler="unipc",
    template=PHOTO_TEMPLATE,
    negative=NEGATIVE,
    steps=20,
    guidance_scale=4.0,  # diffusers advises 3 to 5 in guess mode
    guess_mode=True,
    paint_area_px=512 * 512,
    picture_area_px=512 * 512,
    max_area_px=768 * 768,
    needs_gib=4.2,
    captioner=FLORENCE,
    licence="CreativeML OpenRAIL-M",
)

PRESETS = {preset.name: preset for preset in (KLEIN, SDXL_SCRIBBLE, SD15_SCRIBBLE)}
_BY_CLASS = {preset.pipeline: preset for preset in PRESETS.values()}


def choose(name: str, memory_gib: float, *, has_bfloat16: bool) -> Preset:
    """The preset that `name` (the value of `WEIGHTS`) means on a GPU of `memory_gib`.

    name: "" for the best preset that fits the GPU; a preset; "demo"; a folder; a hub id.

    Raises BadWeights when nothing has that name, or its pipeline class is not one of ours.
    """
    if not name:
        fitting = (p for p in PRESETS.values() if p.needs_gib <= memory_gib)
        if not has_bfloat16:  # klein's activations leave float16's range
            fitting = (p for p in fitting if p.half != "bfloat16")
        return next(fitting, SD15_SCRIBBLE)
    if name in PRESETS:
        return PRESETS[name]
    return _from_source(str(HERE / "weights" / "demo") if name == "demo" else name)


def _from_source(source: str) -> Preset:
    """A preset for a folder or hub id, by the class in its model_index.json."""
    try:
        config: dict[str, Any] = DiffusionPipeline.load_config(source)
    except (OSError, ValueError) as error:
        raise BadWeights(
            "Cannot load: 'WEIGHTS' must be a preset "
            f"({', '.join(PRESETS)}, demo), a folder or a hub id, got {Path(source).name}"
        ) from error
    pipeline = str(config.get("_class_name"))
    if pipeline not in _BY_CLASS:
        raise BadWeights(
            f"Cannot load: the pipeline class must be one of {', '.join(_BY_CLASS)}, got {pipeline}"
        )
    # Parts that a preset takes from other sources belong to that preset, not to this source.
    preset = replace(
        _BY_CLASS[pipeline],
        name=Path(source).name,
        source=source,
        controlnet="",
        vae="",
        unet_file="",
        variant="",
        scheduler="",
        is_for_steps_only=False,
        needs_gib=0.0,
        captioner="",
        licence="unknown",
    )
    return replace(preset, **_overrides(Path(source) / OVERRIDES))


def _overrides(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    allowed = {field.name for field in fields(Preset)} - {"source", "pipeline"}
    unknown = values.keys() - allowed
    if unknown:
        raise BadWeights(f"Cannot load: {OVERRIDES} must hold fields of a preset, got {unknown}")
    return values
