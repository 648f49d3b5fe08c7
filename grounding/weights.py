"""Selects the weights by the variable WEIGHTS: presets, hub ids and folders."""

from pathlib import Path
from typing import NamedTuple

DEFAULT = "llmdet-tiny"
_DEMO = Path(__file__).parent / "weights" / "demo"


class Source(NamedTuple):
    """Where `from_pretrained` loads from."""

    name: str
    """Its name in the output; never a path of this machine."""
    location: str
    """Hub id, or folder."""
    revision: str | None = None
    """Commit of the hub repository, where a public source states it; else the latest."""


# All Apache-2.0, all of one architecture. In brackets: zero-shot AP on LVIS minival as published.
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
    # Trained by this project: finds coloured shapes in small pictures; part of the package.
    "demo": Source("demo", str(_DEMO)),
}


def resolve(wanted: str | None) -> Source:
    """The source that WEIGHTS names: preset, folder, or else hub id; unset or "full": the default.

    >>> resolve(None).location
    'iSEE-Laboratory/llmdet_tiny'
    """
    if not wanted or wanted == "full":
        return PRESETS[DEFAULT]
    if wanted in PRESETS:
        return PRESETS[wanted]
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return Source(folder.name, str(folder))
    return Source(wanted, wanted)
