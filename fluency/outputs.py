"""The output of a prediction, with the field's standard terms.

Times are in s from the start of the recording. A measure that cannot be
computed (no speech, no transcript) is null, never NaN.
"""

from typing import TypedDict

from cog import BaseModel, Path


class Segment(TypedDict):
    """A stretch of speech between two silent pauses."""

    start: float
    end: float


class Pause(TypedDict):
    """A silent pause.

    position: "within" a clause or "between" two, by the transcript; "unknown" without one.
    """

    start: float
    end: float
    duration: float
    position: str


class FilledPause(TypedDict):
    """An "uh" or "um". source: "signal", "transcript" or "both"."""

    start: float
    end: float
    text: str
    source: str


class Word(TypedDict):
    """A word with its punctuation.

    confidence: the recogniser's probability, 0 to 1. kind: "fluent", "filler",
    "repetition" (repeated at once) or "repair" (corrected).
    """

    text: str
    start: float
    end: float
    confidence: float
    kind: str


class Reading(TypedDict):
    """How a text was read aloud, against `reference_text`, word by word.

    words_correct_per_minute is over the total time. The lists hold the words in
    question; a substitution reads "expected -> said".
    """

    reference_words: int
    correct_words: int
    words_correct_per_minute: float
    accuracy: float
    word_error_rate: float
    omissions: list[str]
    insertions: list[str]
    substitutions: list[str]


class Quality(TypedDict):
    """How far the answer can be trusted. Null: it cannot be measured.

    signal_to_noise_db: the loudest second of speech over the room, both below 3.4 kHz.
    bandwidth_hz: up to where the speech has sound, at most 8000. clipped_share: of the samples of
    speech, those at the edge of the range. heard_share: of the time that is loud enough for
    speech, what was taken for speech. language_confidence: 1 if the language was given.
    words_to_syllables: the syllables of the words, by their spelling, over those of the signal
    alone; 1 is agreement. syllables_by_words: the share of the counted syllables where the words
    decided which peaks of the signal count; elsewhere the signal alone. The shares are in [0, 1].
    """

    signal_to_noise_db: float | None
    bandwidth_hz: int | None
    clipped_share: float | None
    heard_share: float
    language_confidence: float | None
    words_to_syllables: float | None
    syllables_by_words: float | None


class Fluency(BaseModel):
    """All measures of one recording."""

    speech_detected: bool
    # Score: 0 (worst) to 100. `calibration` says what it is based on.
    fluency_score: float | None
    speed_score: float | None
    breakdown_score: float | None
    repair_score: float | None
    score_withheld: str | None  # why there is no score
    calibration: str
    # Times in s. total_time_s is from the first sound to the last, without silence at the ends.
    duration_s: float
    total_time_s: float
    phonation_time_s: float
    pause_time_s: float
    # Speed. Rates in syllables per s.
    syllable_count: int
    speech_rate: float | None
    articulation_rate: float | None
    pruned_speech_rate: float | None
    phonation_time_ratio: float | None
    mean_syllable_duration_s: float | None
    mean_length_of_run: float | None
    longest_run: int
    words_per_minute: float | None
    # Breakdown.
    pause_threshold_s: float
    silent_pause_count: int
    silent_pauses_per_minute: float | None
    mean_silent_pause_s: float | None
    pauses_within_clauses_per_minute: float | None
    filled_pause_count: int
    filled_pauses_per_minute: float | None
    # Repair, from the transcript.
    repetition_count: int | None
    repair_count: int | None
    repairs_per_minute: float | None
    # The transcript.
    transcript: str | None
    language: str | None
    language_confidence: float | None
    reading: Reading | None
    # Timelines, ready to draw.
    speech_segments: list[Segment]
    pauses: list[Pause]
    filled_pauses: list[FilledPause]
    syllables: list[float]
    words: list[Word]
    pitch_hz: list[float] | None
    intensity_db: list[float] | None
    timeline: Path | None
    model: str | None
    quality: Quality
    warnings: list[str]
