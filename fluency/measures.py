"""The temporal measures of fluency, from a timeline.

Definitions: N. H. de Jong & T. Wempe (2009) for the rates; J. Kormos & M. Dénes
(2004), "Exploring measures and perceptions of fluency in the speech of second
language learners", System 32, for phonation-time ratio and length of run.
This module is arithmetic on intervals, without signal or thresholds.
"""

from dataclasses import dataclass

import numpy as np
from pauses import Interval


@dataclass(frozen=True)
class Measures:
    """Field names and units as in `outputs.Fluency`; None is undefined.

    total_time_s: from the first sound to the last. phonation_time_s: the total
    without silent pauses. speech_rate: syllables / total_time_s.
    articulation_rate: syllables / phonation_time_s. phonation_time_ratio:
    phonation_time_s / total_time_s. mean_syllable_duration_s: phonation_time_s /
    syllables. mean_length_of_run: syllables / (silent pauses + 1), the mean
    number between pauses; longest_run: the largest such number.
    """

    total_time_s: float
    phonation_time_s: float
    pause_time_s: float
    syllable_count: int
    speech_rate: float | None
    articulation_rate: float | None
    phonation_time_ratio: float | None
    mean_syllable_duration_s: float | None
    mean_length_of_run: float | None
    longest_run: int
    silent_pause_count: int
    silent_pauses_per_minute: float | None
    mean_silent_pause_s: float | None


def measure(segments: list[Interval], silences: list[Interval], nuclei_s: list[float]) -> Measures:
    """All measures of a timeline.

    segments: the speech between pauses; silences: the pauses between segments;
    nuclei_s: the time of each syllable.
    """
    total = segments[-1].end_s - segments[0].start_s if segments else 0.0
    paused = float(sum(pause.duration_s for pause in silences))
    phonation = max(0.0, total - paused)
    count = len(nuclei_s)
    starts = [pause.end_s for pause in silences]
    runs = np.bincount(np.searchsorted(starts, nuclei_s, side="right"), minlength=len(segments))
    return Measures(
        total_time_s=total,
        phonation_time_s=phonation,
        pause_time_s=paused,
        syllable_count=count,
        speech_rate=ratio(count, total),
        articulation_rate=ratio(count, phonation),
        phonation_time_ratio=ratio(phonation, total),
        mean_syllable_duration_s=ratio(phonation, count),
        mean_length_of_run=ratio(count, len(segments)),
        longest_run=int(runs.max(initial=0)),
        silent_pause_count=len(silences),
        silent_pauses_per_minute=per_minute(len(silences), total),
        mean_silent_pause_s=ratio(paused, len(silences)),
    )


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, or None where it is undefined."""
    return numerator / denominator if denominator > 0 else None


def per_minute(count: float, total_time_s: float) -> float | None:
    """A count as a rate per minute of total time."""
    return ratio(60.0 * count, total_time_s)
