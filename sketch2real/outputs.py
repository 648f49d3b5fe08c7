"""The output of a prediction, and the files of its pictures."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path as LocalPath
from typing import Any

from cog import BaseModel, Path
from PIL import Image, ImageOps
from request import Request

EXTENSIONS = {"webp": ".webp", "png": ".png", "jpeg": ".jpg"}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # WebP at 90 is visually lossless for these pictures and a tenth of the PNG's size, which
    # matters in a data URI; method 4 encodes a megapixel in under 0.1 s.
    "webp": {"quality": 90, "method": 4},
    "png": {"optimize": False},
    "jpeg": {"quality": 92, "subsampling": 0},
}


class Output(BaseModel):
    """A sketch made real.

    image: the picture (the first of `images`).
    images: all pictures, `num_outputs` of them; picture i is what `seed + i` alone would give.
    control_image: PNG, the cleaned lines that the model got, white on black.
    prompt_used: the prompt that the model got, "" if none.
    seed: the seed of the first picture; send it back to get the same picture.
    flagged: true if the safety checker objects to any picture, null if no checker is loaded.
    timings: seconds per stage: clean_s, paint_s, check_s, encode_s, total_s.
    """

    image: Path
    images: list[Path]
    control_image: Path
    prompt_used: str
    seed: int
    flagged: bool | None
    timings: dict[str, float]


class Clock:
    """Seconds per stage of a prediction."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """End a stage now; it began when the one before it ended."""
        now = time.perf_counter()
        self._seconds[stage] = round(now - self._last, 4)
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Every stage so far, and total_s."""
        return {**self._seconds, "total_s": round(self._last - self._start, 4)}


def written(
    pictures: Sequence[Image.Image],
    request: Request,
    *,
    size: tuple[int, int],
    output_format: str,
    result_prompt: str,
    flags: Sequence[bool] | None,
    clock: Clock,
) -> Output:
    """Write the pictures of `request` and its lines in `size` px, and make the output."""
    images = save(pictures, output_format, "picture", size)
    control_image = save([request.control], "png", "lines", size)[0]
    clock.mark("encode_s")
    return Output(
        image=images[0],
        images=images,
        control_image=control_image,
        prompt_used=result_prompt,
        seed=request.seeds[0],
        flagged=None if flags is None else any(flags),
        timings=clock.seconds(),
    )


def save(
    pictures: Sequence[Image.Image], output_format: str, stem: str, size: tuple[int, int]
) -> list[Path]:
    """Write `pictures` into a new folder under the temp directory, resized to `size` px.

    Where the painted size has a slightly different aspect ratio, a few pixels of two opposite edges
    are cut off; nothing is stretched.

    coglet reads the files after `run()` has returned and deletes none: the process needs a private
    TMPDIR that is cleaned from outside. A failed write leaves no folder behind.
    """
    folder = LocalPath(tempfile.mkdtemp(prefix="sketch2real-"))
    paths = [folder / f"{stem}-{i}{EXTENSIONS[output_format]}" for i in range(len(pictures))]
    try:
        for picture, path in zip(pictures, paths, strict=True):
            fitted = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
            fitted.save(path, **_SAVE_OPTIONS[output_format])
    except BaseException:  # a cancellation too
        for path in paths:
            path.unlink(missing_ok=True)
        folder.rmdir()
        raise
    return [Path(path) for path in paths]
