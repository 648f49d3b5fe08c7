"""A fluency score of 0 to 100 from the measures, by a map that is data.

`score_map.json` holds the map, its sources and what its calibration is worth.
`tools.calibrate` writes another from a rated corpus; SCORE_MAP names it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

DEFAULT_MAP: Final = Path(__file__).with_name("score_map.json")
MIN_SYLLABLES: Final = 5  # below that a rate is one slip of the detector away from another
MIN_TIME_S: Final = 1.0
SUB_SCORES: Final = ("speed", "breakdown", "repair")


@dataclass(frozen=True)
class Score:
    """Each in [0, 100], or None where nothing of it was measured."""

    fluency: float | None
    speed: float | None
    breakdown: float | None
    repair: float | None


@dataclass(frozen=True)
class ScoreMap:
    """How measures become scores: see `score_map.json`."""

    calibration: str
    measures: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, path: Path | None = None) -> "ScoreMap":
        """The map in `path`, else the one that SCORE_MAP names, else the package's own."""
        chosen = path or Path(os.environ.get("SCORE_MAP") or DEFAULT_MAP)
        data = json.loads(chosen.read_text())
        return cls(data["calibration"], data["measures"])

    def points(self, measure: str, value: float) -> float:
        """The score of one measure: linear between the map's points, held beyond them."""
        at = np.array(self.measures[measure]["points"], float)
        return float(np.interp(value, at[:, 0], at[:, 1]))

    def score(self, values: Mapping[str, float | None]) -> Score:
        """values: by measure name; None or absent is left out, and the others count for it."""
        known = {
            name: self.points(name, value)
            for name in self.measures
            if (value := values.get(name)) is not None
        }
        parts = {
            part: self._mean(
                {n: s for n, s in known.items() if self.measures[n]["sub_score"] == part}
            )
            for part in SUB_SCORES
        }
        return Score(self._mean(known), parts["speed"], parts["breakdown"], parts["repair"])

    def _mean(self, scores: Mapping[str, float]) -> float | None:
        weights = [self.measures[name]["weight"] for name in scores]
        if not scores or sum(weights) <= 0:
            return None
        return round(float(np.average(list(scores.values()), weights=weights)), 1)


def is_scorable(syllables: int, total_time_s: float) -> bool:
    """Whether there is enough speech for a score."""
    return syllables >= MIN_SYLLABLES and total_time_s >= MIN_TIME_S
