"""The output. Its field names are the field's standard terms."""

from typing import Any, NotRequired, TypedDict

from cog import BaseModel, Path

# The parts of Output are TypedDicts: Cog's models do not nest.


class Mask(TypedDict):
    """A mask over the whole picture in COCO's uncompressed run-length encoding."""

    size: list[int]
    """[height, width] of the picture."""
    counts: list[int]
    """Pixels out of the mask, in it, out of it, … down each column, from left to right."""


class Detection(TypedDict):
    """One box and its label."""

    label: str
    """The label as the caller wrote it."""
    label_index: int
    """Its place in `queries_used`, from 0."""
    score: float
    """Mean probability of the label's own tokens, 0 to 1."""
    box: list[float]
    """[x1, y1, x2, y2] in px of the upright picture, inside it, x to the right and y down."""
    box_normalized: list[float]
    """The same box as fractions of width and height, 0 to 1."""
    mask: NotRequired[Mask | None]
    """If `masks` is "rle". Null where the model kept none."""
    polygons: NotRequired[list[list[float]] | None]
    """If `masks` is "polygon": outlines [x1, y1, x2, y2, …] in px of the upright picture, one for
    each piece of the mask, the largest first. Null where the model kept none."""


class PictureSize(TypedDict):
    """Size of the upright picture (after its EXIF orientation was applied), in px."""

    width: int
    height: int


class Thresholds(TypedDict):
    """The thresholds that were applied."""

    box_threshold: float
    text_threshold: float
    nms: float | None
    """IoU above which boxes of one label were merged; null: not merged."""


class Output(BaseModel):
    """Everything found, best first."""

    detections: list[Detection]
    """Sorted by score, highest first."""
    image: PictureSize
    queries_used: list[str]
    """The labels searched for, in order, without repetitions."""
    queries_read_as: dict[str, list[str]]
    """Labels for which the model looked for something else than their own words, and for what:
    with a model of 80 classes "puppy" is read as dog, "vehicle" as eight classes."""
    queries_ignored: list[str]
    """Labels that mean nothing to the model, and were not searched for."""
    thresholds: Thresholds
    truncated: bool
    """True if more boxes passed the thresholds than `max_detections` allows."""
    model: str
    """Preset, hub id or folder name of the weights."""
    annotated_image: Path | None
    """JPEG of the picture with its boxes and masks drawn, if `annotated` was set."""
    export: dict[str, Any] | None
    """The detections as COCO or Label Studio JSON, if `format` is set to it."""
