"""Fits the score map to recordings that people have rated, and reports how well it predicts them.

    python -m tools.calibrate ratings.csv --scale 0 10 --out my_map.json
    python -m tools.calibrate path/to/speechocean762 --scale 0 10 --out my_map.json

The CSV has a header and the columns `file` (relative to the CSV) and `rating`;
the folder is speechocean762 as published (`resource/scores.json`, `train/wav.scp`).
Set SCORE_MAP to the result to use it.

Method: each measure's curve is the isotonic regression of the rating over
quantile bins, in the direction of the literature; its weight is its correlation
with the rating, 0 where that has the wrong sign. The reported correlations are
of predictions for recordings left out of the fit (5 folds), with
a 95 % bootstrap interval.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from acoustics import analyse
from audio import read
from errors import InvalidInput
from measures import measure, per_minute
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import bootstrap, rankdata
from score import DEFAULT_MAP, ScoreMap
from vad import SileroVad

# The direction of each measure of the default map: +1, more is better.
DIRECTIONS: Final = {
    "articulation_rate": 1,
    "silent_pauses_per_minute": -1,
    "mean_silent_pause_s": -1,
    "repairs_per_minute": -1,
}
MIN_RECORDINGS: Final = 20
_BINS: Final = 6
_FOLDS: Final = 5
_BOOTSTRAPS: Final = 2000

Values = dict[str, float]


@dataclass(frozen=True)
class Quality:
    """Correlations of predictions for left-out recordings, each with its 95 % interval."""

    recordings: int
    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]


def rated_files(corpus: Path) -> list[tuple[Path, float]]:
    """The recordings and ratings of a CSV, or of a speechocean762 folder (its training part).

    Raises ValueError when there are fewer than 20 ratings or all are equal, when the CSV lacks one
    of the two columns, when a rating is missing or no number, and when a recording is missing.
    """
    pairs = _speechocean(corpus) if corpus.is_dir() else _csv(corpus)
    if len(pairs) < MIN_RECORDINGS:
        raise ValueError(
            f"Cannot fit: at least {MIN_RECORDINGS} ratings are needed, got {len(pairs)}"
        )
    if missing := [path.name for path, _ in pairs if not path.is_file()]:
        raise ValueError(f"Cannot fit: {len(missing)} recordings are missing, first {missing[0]}")
    if len({rating for _, rating in pairs}) == 1:
        raise ValueError(f"Cannot fit: ratings must differ, got {pairs[0][1]} for all")
    return pairs


def _csv(path: Path) -> list[tuple[Path, float]]:
    with path.open(newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
        rows = list(csv.DictReader(file))
    if rows and not {"file", "rating"} <= set(rows[0]):
        raise ValueError("Cannot fit: the CSV must have the columns 'file' and 'rating'")
    return [
        (path.parent / row["file"], _number(row["rating"], f"line {line}"))
        for line, row in enumerate(rows, start=2)
    ]


def _speechocean(folder: Path) -> list[tuple[Path, float]]:
    scores = json.loads((folder / "resource" / "scores.json").read_text())
    pairs = []
    for line in (folder / "train" / "wav.scp").read_text().splitlines():
        utterance, name = line.split(maxsplit=1)
        if utterance not in scores:
            raise ValueError(f"Cannot fit: resource/scores.json has no scores of {utterance}")
        pairs.append((folder / name, _number(scores[utterance]["fluency"], utterance)))
    return pairs


def _number(text: str | float, where: str) -> float:
    try:
        rating = float(text)
    except (TypeError, ValueError):
        rating = math.nan
    if not math.isfinite(rating):
        raise ValueError(f"Cannot fit: the rating in {where} must be a number, got {text!r}")
    return rating


def values_of(path: Path, vad: SileroVad, pause_threshold_s: float = 0.25) -> Values | None:
    """The measures that the map needs, from the signal alone; None without speech."""
    heard = analyse(read(path).samples, vad, pause_threshold_s)
    if heard is None:
        return None
    found = asdict(measure(heard.segments, heard.silences, heard.nuclei_s))
    found["mean_silent_pause_s"] = found["mean_silent_pause_s"] or 0.0
    found["repairs_per_minute"] = per_minute(len(heard.fillers), found["total_time_s"])
    return {name: float(found[name]) for name in DIRECTIONS}


def fit(values: Sequence[Values], ratings: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    """The `measures` part of a score map. ratings: (n,) in [0, 100]."""
    template = json.loads(DEFAULT_MAP.read_text())["measures"]
    fitted = {}
    for name, direction in DIRECTIONS.items():
        x = np.array([value[name] for value in values])
        weight = float(_pearson(x, ratings)) * direction
        fitted[name] = {
            **template[name],
            "weight": round(max(weight, 0.0), 3),
            "points": _curve(x, ratings, direction),
            "source": "fitted: isotonic over quantile bins, weighted by correlation",
        }
    return fitted


def _curve(x: NDArray[np.float64], y: NDArray[np.float64], direction: int) -> list[list[float]]:
    """Monotonic points [value, score] through the means of quantile bins."""
    edges = np.unique(np.quantile(x, np.linspace(0, 1, _BINS + 1)))
    bins = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(len(edges) - 2, 0))
    used = np.unique(bins)
    centres = np.array([x[bins == index].mean() for index in used])
    means = np.array([y[bins == index].mean() for index in used])
    counts = np.array([np.count_nonzero(bins == index) for index in used])
    smooth = isotonic_regression(means, weights=counts, increasing=direction > 0).x
    return [[round(float(a), 4), round(float(b), 2)] for a, b in zip(centres, smooth, strict=True)]


def cross_validate(values: Sequence[Values], ratings: NDArray[np.float64]) -> Quality:
    """Predict each fifth by a fit to the other four, and correlate with the ratings."""
    order = np.random.default_rng(0).permutation(len(values))
    predicted = np.zeros(len(values))
    for fold in range(_FOLDS):
        held = order[fold::_FOLDS]
        kept = np.setdiff1d(order, held)
        scores = ScoreMap("", fit([values[i] for i in kept], ratings[kept]))
        for index in held:
            predicted[index] = scores.score(values[index]).fluency or 0.0
    return Quality(
        len(values),
        *_interval(predicted, ratings, _pearson),
        *_interval(predicted, ratings, _spearman),
    )


def _interval(
    a: NDArray[np.float64], b: NDArray[np.float64], correlation: Any
) -> tuple[float, tuple[float, float]]:
    """A correlation and its 95 % bootstrap interval (percentiles over recordings)."""
    drawn = bootstrap(
        (a, b),
        correlation,
        paired=True,
        n_resamples=_BOOTSTRAPS,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = drawn.confidence_interval
    return round(float(correlation(a, b)), 3), (round(float(low), 3), round(float(high), 3))


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Pearson's r along an axis; 0 where one side does not vary."""
    a = a - a.mean(axis=axis, keepdims=True)
    b = b - b.mean(axis=axis, keepdims=True)
    spread = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
    together = (a * b).sum(axis=axis)
    return np.asarray(np.divide(together, spread, out=np.zeros_like(spread), where=spread > 1e-9))


def _spearman(
    a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """Spearman's rho along an axis: Pearson's r of the ranks."""
    return _pearson(rankdata(a, axis=axis), rankdata(b, axis=axis), axis)


def calibrate(corpus: Path, scale: tuple[float, float], target: Path) -> Quality:
    """Fit, validate and write a map. scale: the rating that means 0, and the one that means 100.

    Recordings without speech are left out.

    Raises ValueError when `rated_files` does, when both ends of the scale are equal, when a
    recording cannot be read, and when fewer than 20 hold speech.
    """
    if scale[0] == scale[1]:
        raise ValueError(f"Cannot fit: the ends of --scale must differ, got {scale[0]} twice")
    vad = SileroVad.load()
    values, ratings = [], []
    for path, rating in rated_files(corpus):
        try:
            found = values_of(path, vad)
        except InvalidInput as problem:
            raise ValueError(f"{path.name}: {problem}") from problem
        if found is not None:
            values.append(found)
            ratings.append(100 * (rating - scale[0]) / (scale[1] - scale[0]))
    if len(values) < MIN_RECORDINGS:
        raise ValueError(
            f"Cannot fit: speech was found in {len(values)} recordings, {MIN_RECORDINGS} are needed"
        )
    rated = np.clip(np.array(ratings), 0, 100)
    quality = cross_validate(values, rated)
    low, high = quality.pearson_interval
    made = {
        "calibration": f"fitted to {quality.recordings} rated recordings of {corpus.stem}: "
        f"cross-validated Pearson {quality.pearson:.2f} ({low:.2f} to {high:.2f})",
        "quality": asdict(quality),
        "measures": fit(values, rated),
    }
    target.write_text(json.dumps(made, indent=2, allow_nan=False) + "\n")
    return quality


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", type=Path, help="a CSV, or a speechocean762 folder")
    parser.add_argument("--scale", type=float, nargs=2, default=(0, 10), metavar=("LOW", "HIGH"))
    parser.add_argument("--out", type=Path, required=True, help="the score map to write")
    given = parser.parse_args(arguments)
    try:
        quality = calibrate(given.corpus, tuple(given.scale), given.out)
    except (ValueError, OSError) as problem:
        sys.exit(f"calibrate: {problem}")
    for name, value in asdict(quality).items():
        sys.stdout.write(f"{name:18} {value}\n")


if __name__ == "__main__":
    main()
