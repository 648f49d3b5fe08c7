"""Which weights: presets, hub ids and folders behind the one variable WEIGHTS."""

from pathlib import Path
from typing import NamedTuple

DEFAULT = "llmdet-tiny"
_DEMO = Path(__file__).parent / "weights" / "demo"


class Source(NamedTuple):
    """Where `from_pretrained` loads from."""

    name: str
    """What answers call it; never a path of this machine."""
    location: str
    """Hub id, or folder."""
    revision: str | None = None
    """Commit of the hub repository, where a public source states it; else its latest."""


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
    # Saw COCO in training: no zero-shot figure on it is honest.
    "grounding-dino-base": Source("grounding-dino-base", "IDEA-Research/grounding-dino-base"),
    # Ours: finds coloured shapes in small pictures; ships with the package.
    "demo": Source("demo", str(_DEMO)),
}


def resolve(wanted: str | None) -> Source:
    """What WEIGHTS names: a preset, a folder, or else a hub id; unset or "full": the default.

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
