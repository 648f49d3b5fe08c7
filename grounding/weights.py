"""Selects the weights by the variable WEIGHTS: presets, hub ids and folders."""

import json
from pathlib import Path
from typing import NamedTuple

DEFAULT = "llmdet-base"
"""Where there is a GPU: the better of the two that were measured on one. On an H200 it took 87 ms a
picture, and llmdet-tiny 76 (bench/results/gpu.jsonl)."""

SMALL = "coco80"
"""Where there is none; WEIGHTS=demo names it too."""

_FOLDER = Path(__file__).parent / "weights"


class Source(NamedTuple):
    """Where `from_pretrained` loads from."""

    name: str
    """Its name in the output; never a path of this machine."""
    location: str
    """Hub id, or folder."""
    revision: str | None = None
    """Commit of the hub repository, where a public source states it; else the latest."""
    engine: str = "transformers"
    """The value of ENGINE that loads it."""


# All Apache-2.0 but sam3; all but coco80 and sam3 of one architecture. In brackets: zero-shot AP on
# LVIS minival as published.
PRESETS = {
    # The best score at the cost of a Swin-T backbone [44.7]; revision as pinned by
    # LichtFeld-Studio's release "model-llmdet-tiny-v1".
    "llmdet-tiny": Source(
        "llmdet-tiny",
        "iSEE-Laboratory/llmdet_tiny",
        "d05199165a19320a9236396e20fca0a5e065189c",
    ),
    "llmdet-base": Source("llmdet-base", "iSEE-Laboratory/llmdet_base"),  # [48.3]
    "llmdet-large": Source("llmdet-large", "iSEE-Laboratory/llmdet_large"),  # [51.1]
    "mm-grounding-dino-tiny": Source(  # [41.4]
        "mm-grounding-dino-tiny", "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det"
    ),
    # The original [28.8]; the last revision that the hub's pages show with safetensors.
    "grounding-dino-tiny": Source(
        "grounding-dino-tiny",
        "IDEA-Research/grounding-dino-tiny",
        "a2bb814dd30d776dcf7e30523b00659f4f141c71",
    ),
    # Trained on COCO, so it has no zero-shot figure there.
    "grounding-dino-base": Source("grounding-dino-base", "IDEA-Research/grounding-dino-base"),
    # Masks too [box AP 53.6 on LVIS]. The SAM License forbids some uses, and the hub asks for an
    # account that has accepted it.
    "sam3": Source("sam3", "facebook/sam3", engine="sam3"),
    # 80 classes instead of any words; its licences are in its folder.
    "coco80": Source("coco80", str(_FOLDER / "demo"), engine="coco80"),
    # Trained by this project for tests: finds coloured shapes in small pictures.
    "drawn": Source("drawn", str(_FOLDER / "drawn")),
}


def resolve(wanted: str | None, *, has_gpu: bool = True) -> Source:
    """The source that WEIGHTS names: preset, folder, or else hub id.

    "full" is DEFAULT and "demo" is SMALL; unset is either, by the GPU.

    >>> resolve(None).location
    'iSEE-Laboratory/llmdet_base'
    """
    if not wanted:
        wanted = "full" if has_gpu else "demo"
    wanted = {"full": DEFAULT, "demo": SMALL}.get(wanted, wanted)
    if wanted in PRESETS:
        return PRESETS[wanted]
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return Source(folder.name, str(folder), engine=_engine_of(folder))
    return Source(wanted, wanted)


def _engine_of(folder: Path) -> str:
    """By the architecture that a folder of weights names."""
    try:
        kind = json.loads((folder / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return "transformers"  # which says what is missing
    return "sam3" if kind in ("sam3", "sam3_video") else "transformers"
