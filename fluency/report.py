"""Combines the measurements and the transcript to the output."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Final

import disfluency
import numpy as np
import reading
import spelling
import syllable_words
import trust
from acoustics import Acoustics
from asr import Transcript, Word
from measures import Measures, measure, per_minute, ratio
from outputs import FilledPause, Fluency, Pause, Reading, Segment
from outputs import Word as WordOut
from pauses import Interval
from quality import NO_SPEECH
from score import Score, ScoreMap

# Of a detected language. Real recordings of 2 s and more in one language reach 0.78.
MIN_CONFIDENCE: Final = 0.5


def silence(duration_s: float, pause_threshold_s: float, scores: ScoreMap) -> Fluency:
    """The output for a recording without speech: no measures."""
    nothing = {**_rounded(measure([], [], [])), **_scores(Score(None, None, None, None))}
    return Fluency(
        speech_detected=False,
        calibration=scores.calibration,
        duration_s=round(duration_s, 3),
        pause_threshold_s=pause_threshold_s,
        pruned_speech_rate=None,
        words_per_minute=None,
        pauses_within_clauses_per_minute=None,
        filled_pause_count=0,
        filled_pauses_per_minute=None,
        repetition_count=None,
        repair_count=None,
        repairs_per_minute=None,
        transcript=None,
        language=None,
        language_confidence=None,
        reading=None,
        speech_segments=[],
        pauses=[],
        filled_pauses=[],
        syllables=[],
        words=[],
        pitch_hz=None,
        intensity_db=None,
        timeline=None,
        model=None,
        quality=trust.output(NO_SPEECH, None, None, None),
        score_withheld=trust.NO_SPEECH_FOUND,
        warnings=[trust.NO_SPEECH_FOUND],
        **nothing,
    )


def compose(
    heard: Acoustics,
    understood: Transcript | None,
    *,
    duration_s: float,
    pause_threshold_s: float,
    reference: Sequence[str] | None,
    scores: ScoreMap,
    model: str | None,
    contours: bool = False,
) -> Fluency:
    """The output for speech. `understood` is None if no transcript was requested."""
    words = snap(understood.words, _quiet(heard)) if understood else []
    shown = words
    is_spaced = understood is not None and understood.is_spaced
    if understood and understood.language_probability < MIN_CONFIDENCE:
        words, is_spaced = [], False  # they may be invented: nothing is counted in them
    language = understood.language if understood else "en"
    counted = syllable_words.count(heard.nuclei_s, heard.peaks, words, heard.phrases, language)
    measures = measure(heard.segments, heard.silences, counted.times_s)
    total_s = measures.total_time_s
    # The score's map was drawn for pauses of 0.25 s, whatever the list shows.
    standard = measure(heard.segments, heard.standard_pauses, counted.times_s)
    kinds = disfluency.classify(
        [word.text for word in words],
        language,
        is_spaced=is_spaced,
        gaps_s=[after.start_s - word.end_s for word, after in pairwise(words)],
    )
    fillers = merge_fillers(heard.fillers, words, kinds)
    spoken = [word for word, kind in zip(words, kinds, strict=True) if kind != disfluency.FILLER]
    silences = [_pause(pause, spoken, language) for pause in heard.silences]
    repetitions = disfluency.count(kinds, disfluency.REPETITION) if is_spaced else None
    repairs = disfluency.count(kinds, disfluency.REPAIR) if is_spaced else None
    hesitations = len(fillers) + (repetitions or 0) + (repairs or 0)
    values = {**asdict(standard), "repairs_per_minute": per_minute(hesitations, total_s)}
    if values["mean_silent_pause_s"] is None:
        values["mean_silent_pause_s"] = 0.0  # no pause is the best value, not a missing one
    fit = _fit(heard, understood)
    withheld = trust.withheld(heard.quality, measures.syllable_count, total_s, fit)
    scored = Score(None, None, None, None) if withheld else scores.score(values)
    within = sum(pause["position"] == "within" for pause in silences)
    return Fluency(
        speech_detected=True,
        calibration=scores.calibration,
        duration_s=round(duration_s, 3),
        pause_threshold_s=pause_threshold_s,
        pruned_speech_rate=_round(_pruned_rate(counted.times_s, words, kinds, fillers, total_s)),
        words_per_minute=_words_per_minute(kinds, total_s) if is_spaced else None,
        pauses_within_clauses_per_minute=_round(per_minute(within, total_s)) if words else None,
        filled_pause_count=len(fillers),
        filled_pauses_per_minute=_round(per_minute(len(fillers), total_s)),
        repetition_count=repetitions,
        repair_count=repairs,
        repairs_per_minute=_round(values["repairs_per_minute"]) if is_spaced else None,
        reading=_reading(words, reference, total_s, language) if is_spaced and reference else None,
        pauses=silences,
        filled_pauses=fillers,
        words=[
            _word(word, kind)
            for word, kind in zip(shown, kinds or [disfluency.FLUENT] * len(shown), strict=True)
        ],
        timeline=None,
        model=model,
        quality=trust.output(heard.quality, understood, fit, counted.share if words else None),
        score_withheld=withheld,
        warnings=[*_warnings(understood, reference), *trust.warnings(heard.quality, total_s, fit)],
        **_timelines(heard, counted.times_s, contours),
        **_transcript(understood),
        **_rounded(measures),
        **_scores(scored),
    )


def _timelines(heard: Acoustics, syllables_s: Sequence[float], contours: bool) -> dict[str, Any]:
    """The timelines of the signal; the contours at 50 Hz, if requested."""
    return {
        "speech_segments": [
            Segment(start=round(s.start_s, 2), end=round(s.end_s, 2)) for s in heard.segments
        ],
        "syllables": [round(time, 2) for time in syllables_s],
        "pitch_hz": _pitch(heard) if contours else None,
        "intensity_db": [round(float(v), 1) for v in heard.intensity_db[::2]] if contours else None,
    }


def _transcript(understood: Transcript | None) -> dict[str, Any]:
    return {
        "transcript": understood.text if understood else None,
        "language": understood.language if understood else None,
        "language_confidence": _round(understood.language_probability) if understood else None,
    }


def _reading(
    words: Sequence[Word], reference: Sequence[str], total_s: float, language: str
) -> Reading:
    said = reading.tokens_of(" ".join(word.text for word in words))
    return reading.compare(reference, said, total_s, language)


def snap(words: Sequence[Word], silences: Sequence[Interval]) -> list[Word]:
    """Move word edges out of silent pauses: Whisper stretches words over them."""
    moved = []
    for word in words:
        start, end = word.start_s, word.end_s
        for pause in silences:
            middle = (start + end) / 2
            if pause.start_s <= start < pause.end_s < end:
                start = pause.end_s
            elif start < pause.start_s < end <= pause.end_s:
                end = pause.start_s
            elif start < pause.start_s and pause.end_s < end:  # on both sides: keep the longer
                before, after = pause.start_s - start, end - pause.end_s
                start, end = (start, pause.start_s) if before >= after else (pause.end_s, end)
            elif pause.start_s <= start and end <= pause.end_s:  # inside: to the nearer edge
                edge = (
                    pause.start_s if middle - pause.start_s < pause.end_s - middle else pause.end_s
                )
                start = end = edge
        moved.append(Word(word.text, start, end, word.probability))
    return moved


def _quiet(heard: Acoustics) -> list[Interval]:
    """All time without speech: before the first sound, the pauses of 0.25 s, after the last."""
    before = Interval(-math.inf, heard.segments[0].start_s)
    return [before, *heard.standard_pauses, Interval(heard.segments[-1].end_s, math.inf)]


def merge_fillers(
    heard: Sequence[Interval], words: Sequence[Word], kinds: Sequence[str]
) -> list[FilledPause]:
    """Fillers from signal and transcript; one in both counts once.

    A steady vowel belongs to a word of high probability if it begins in its first half or has its
    middle in it.
    """
    spoken = [w for w, kind in zip(words, kinds, strict=True) if kind == disfluency.FILLER]
    fluent = [
        word
        for word, kind in zip(words, kinds, strict=True)
        if kind != disfluency.FILLER and word.probability >= 0.5
    ]
    found = [_filler(w.start_s, w.end_s, w.text, "transcript") for w in spoken]
    for filler in heard:
        twins = [f for f in found if f["start"] < filler.end_s and filler.start_s < f["end"]]
        for twin in twins:
            twin["source"] = "both"
        middle = (filler.start_s + filler.end_s) / 2
        if twins or any(
            w.start_s <= middle < min(w.end_s, w.start_s + 0.15 + 0.12 * len(w.text))
            or w.start_s <= filler.start_s < (w.start_s + w.end_s) / 2
            for w in fluent
        ):
            continue
        found.append(_filler(filler.start_s, filler.end_s, "", "signal"))
    return sorted(found, key=lambda filler: filler["start"])


def _pitch(heard: Acoustics) -> list[float]:
    frequency = np.where(heard.pitch.voiced, heard.pitch.frequency_hz, 0.0)
    return [round(float(value), 1) for value in frequency]


def _filler(start_s: float, end_s: float, text: str, source: str) -> FilledPause:
    plain = disfluency.normalise(text)
    return FilledPause(start=round(start_s, 2), end=round(end_s, 2), text=plain, source=source)


def _pause(pause: Interval, words: Sequence[Word], language: str) -> Pause:
    middle = (pause.start_s + pause.end_s) / 2
    before = [word for word in words if (word.start_s + word.end_s) / 2 <= middle]
    after = [word for word in words if (word.start_s + word.end_s) / 2 > middle]
    position = "unknown"
    if before and after:
        position = disfluency.pause_position(before[-1].text, after[0].text, language)
    return Pause(
        start=round(pause.start_s, 2),
        end=round(pause.end_s, 2),
        duration=round(pause.duration_s, 2),
        position=position,
    )


def _word(word: Word, kind: str) -> WordOut:
    return WordOut(
        text=word.text,
        start=round(word.start_s, 2),
        end=round(word.end_s, 2),
        confidence=round(word.probability, 3),
        kind=kind,
    )


def _pruned_rate(
    nuclei_s: Sequence[float],
    words: Sequence[Word],
    kinds: Sequence[str],
    fillers: Sequence[FilledPause],
    total_s: float,
) -> float | None:
    """Syllables without those of fillers, repetitions and repairs, per s of total time."""
    struck = [(f["start"], f["end"]) for f in fillers]
    struck += [
        (word.start_s, word.end_s)
        for word, kind in zip(words, kinds, strict=True)
        if kind != disfluency.FLUENT
    ]
    kept = sum(not any(start <= time < end for start, end in struck) for time in nuclei_s)
    return ratio(kept, total_s)


def _words_per_minute(kinds: Sequence[str], total_s: float) -> float | None:
    """All words but fillers."""
    return _round(per_minute(sum(kind != disfluency.FILLER for kind in kinds), total_s))


def _fit(heard: Acoustics, understood: Transcript | None) -> float | None:
    """Syllables of the words over those of the signal; None where the language is a guess."""
    if understood is None or understood.language_probability < MIN_CONFIDENCE:
        return None
    spelled = spelling.syllables((word.text for word in understood.words), understood.language)
    return None if spelled is None else ratio(spelled, len(heard.nuclei_s))


def _warnings(understood: Transcript | None, reference: Sequence[str] | None) -> list[str]:
    """What is to be said of the words."""
    if understood is None:
        return []
    warnings = list(understood.warnings)
    if understood.language_probability < MIN_CONFIDENCE:
        share = round(100 * understood.language_probability)
        warnings.append(
            f"the language is a guess ({understood.language}, {share} %), so the words are not "
            "scored: say which language it is"
        )
    if reference and not understood.is_spaced:
        warnings.append("the reading was not compared: its script has no spaces between words")
    return warnings


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _rounded(measures: Measures) -> dict[str, Any]:
    return {
        name: _round(value) if isinstance(value, float) else value
        for name, value in asdict(measures).items()
    }


def _scores(score: Score) -> dict[str, float | None]:
    return {
        "fluency_score": score.fluency,
        "speed_score": score.speed,
        "breakdown_score": score.breakdown,
        "repair_score": score.repair,
    }
