"""All measurements of the signal alone, in their order, without a transcript."""

from dataclasses import dataclass
from functools import partial

import bands
import creak
import edges
import fillers
import intensity
import level
import noise
import numpy as np
import pauses
import pitch
import quality
import syllables
from numpy.typing import NDArray
from pauses import Interval
from vad import SileroVad


@dataclass(frozen=True)
class Acoustics:
    """The measurements. samples: normalised, (n,) at 16 kHz; nuclei_s: syllable times.

    peaks: of the intensity, each syllable among them.
    """

    samples: NDArray[np.float32]
    segments: list[Interval]
    phrases: list[Interval]  # the same between pauses of 0.25 s, whatever the threshold
    silences: list[Interval]
    standard_pauses: list[Interval]  # silences of 0.25 s and more, whatever the threshold
    fillers: list[Interval]
    nuclei_s: list[float]
    peaks: syllables.Peaks
    pitch: pitch.Pitch
    intensity_db: NDArray[np.float64]  # at 10 ms steps, with the recording's own gain
    quality: quality.SoundQuality


def analyse(
    samples: NDArray[np.float32], vad: SileroVad, pause_threshold_s: float
) -> Acoustics | None:
    """Measure one recording; None if there is no speech. samples: (n,) float32, 16 kHz."""
    clean = bands.without_rumble(samples)
    levelled = level.bring(clean, vad)
    if levelled is None:
        return None
    voice, heard, room_db = _voice(levelled)
    if not heard.mask.any():
        return None
    contour = intensity.contour(voice)
    tone = pitch.track(voice)
    measured = heard.mask & ~levelled.events
    strength = tone.strength_at(np.arange(len(contour), dtype=np.float64) * intensity.HOP_S)
    whisper = syllables.voiceless(strength, heard.mask)
    floor_db = syllables.threshold_db(contour[measured if measured.any() else heard.mask])
    nuclei = syllables.nuclei(
        contour,
        strength,
        pauses.bridged(heard.mask),
        floor_db,
        whisper=whisper,
        probability=heard.probability,
        hiss=syllables.fricative(
            contour,
            intensity.contour(bands.fricatives(voice)),
            intensity.contour(bands.above_telephone(levelled.samples)),
            whisper,
        ),
        creaks=partial(creak.is_creak, voice),
    )
    mask = pauses.without_breaths(heard, nuclei)
    if not mask.any():
        return None
    spoken = pauses.bridged(mask)
    nuclei = nuclei[spoken[np.rint(nuclei / intensity.HOP_S).astype(int)]]
    lasting = edges.lasting(mask, heard, levelled, vad)
    silences = pauses.silent_pauses(lasting, pause_threshold_s)
    segments = pauses.speech_segments(mask, silences)
    return Acoustics(
        samples=levelled.samples,
        segments=segments,
        phrases=pauses.phrases(mask),
        silences=silences,
        standard_pauses=pauses.silent_pauses(lasting, pauses.PAUSE_S),
        fillers=[
            filler
            for filler in fillers.filled_pauses(voice, tone, mask, nuclei)
            if any(s.start_s <= filler.start_s < s.end_s for s in segments)
        ],
        nuclei_s=[float(time) for time in nuclei],
        peaks=syllables.candidates(contour, spoken, floor_db),
        pitch=tone,
        intensity_db=intensity.contour(clean),
        quality=quality.of(samples, levelled.samples, mask, room_db),
    )


def _voice(
    levelled: level.Levelled,
) -> tuple[NDArray[np.float32], pauses.Sounding, float | None]:
    """The signal in the telephone band without steady noise, where speech sounds in it, and the
    noise level before noise was subtracted.
    """
    voice = bands.telephone(levelled.samples)
    probabilities = levelled.probabilities
    heard = pauses.sounding(voice, probabilities, events=levelled.events)
    room_db = heard.noise_db
    if heard.is_noisy:
        voice = noise.subtract(voice, heard.quiet)
        heard = pauses.sounding(voice, probabilities, events=levelled.events, is_subtracted=True)
    return voice, heard, room_db


def warm_up(vad: SileroVad) -> None:
    """Run every step on one second of hum, so that the first request is not slow."""
    time_s = np.arange(pitch.SAMPLE_RATE_HZ, dtype=np.float32) / pitch.SAMPLE_RATE_HZ
    tone = (0.1 * np.sin(2 * np.pi * 150 * time_s)).astype(np.float32)
    level.bring(bands.without_rumble(tone), vad)
    hum = bands.telephone(tone)
    heard = pauses.sounding(hum, vad.probabilities(hum))
    everywhere = np.ones_like(heard.mask)
    noise.subtract(hum, everywhere)
    fillers.filled_pauses(hum, pitch.track(hum), everywhere, np.zeros(0))
