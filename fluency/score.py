"""A fluency score of 0 to 100 from the measures, by a map in a JSON file.

`score_map.json` holds the map, its sources and how well it is calibrated. `tools.calibrate` fits
another to rated recordings; SCORE_MAP names the file to use.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

DEFAULT_MAP: Final = Path(__file__).with_name("score_map.json")
SUB_SCORES: Final = ("speed", "breakdown", "repair")


@dataclass(frozen=True)
class Score:
    """Each in [0, 100], or None if none of its measures is known."""

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
        """The map in `path`, else in SCORE_MAP, else the package's own."""
        chosen = path or Path(os.environ.get("SCORE_MAP") or DEFAULT_MAP)
        data = json.loads(chosen.read_text())
        return cls(data["calibration"], data["measures"])

    def points(self, measure: str, value: float) -> float:
        """The score of one measure: linear between the map's points, constant beyond them."""
        at = np.array(self.measures[measure]["points"], float)
        return float(np.interp(value, at[:, 0], at[:, 1]))

    def score(self, values: Mapping[str, float | None]) -> Score:
        """values: by measure name; a missing or None value is left out of the weighted means."""
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
