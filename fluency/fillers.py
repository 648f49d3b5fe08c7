"""Filled pauses in the signal: a voice that holds one vowel at one pitch.

Source: M. Goto, K. Itou & S. Hayamizu (1999), "A real-time filled pause
detection system for spontaneous speech recognition", Eurospeech: a filled pause
shows little movement of the pitch and little deformation of the spectral
envelope. There are two kinds:

- drawn out: such a stretch of at least 0.28 s, near the start of a voiced sound, that is longer
  than the speaker's syllables usually are: who speaks slowly holds every vowel, and a word that is
  drawn out at its end ("Montreaaal") has voice before it;
- alone between two silences, as most are (H. H. Clark & J. E. Fox Tree 2002,
  "Using uh and um in spontaneous speaking", Cognition 84): shorter, with one
  change of sound ("um") and a falling pitch allowed.

Neither is an [i] or [y]: fillers are open or central vowels and nasals.

The limits were set on 100 s of read and telephone speech with synthetic fillers
added; none was validated on real second-language speech. A held word that stands
alone ("oh") counts, unless it is in the transcript.
"""

from typing import Final

import intensity
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pauses import Interval
from pitch import HOP, HOP_S, SAMPLE_RATE_HZ, Pitch
from scipy.fft import rfft
from scipy.signal import get_window
from transformers.audio_utils import mel_filter_bank
from vad import runs

MIN_DURATION_S: Final = 0.28  # longer than a stressed vowel in running speech
_ENOUGH_SYLLABLES: Final = 5  # to know what is usual
MAX_PITCH_SLOPE: Final = 12.0  # semitones per s: a filler is level or falls slowly
# From the start of the voice: two fillers have 0.06, ends of words that are drawn out 0.3 and more.
MAX_VOICE_BEFORE_S: Final = 0.16
# Density of 1.9 to 3 kHz over 0.35 to 1.5 kHz: 8 in a drawn-out [i]; of ten hesitations the vowels
# have -14 and less, a nasal -1.
CLOSE_FRONT_DB: Final = 4.0
_BELOW_HZ, _FRONT_HZ = (350, 1500), (1900, 3000)
MAX_FLUX_DB: Final = 2.0  # root mean square change of the mel spectrum between 20 ms steps
# Of a sound between two silences.
ALONE_S: Final = (0.24, 1.2)
SILENCE_AROUND_S: Final = 0.15
MIN_VOICED: Final = 0.85
MIN_STEADY: Final = 0.6  # share of the voiced steps: what a vowel and a nasal leave of 0.4 s
MAX_FALL: Final = 25.0  # semitones per s
MAX_BEND: Final = 0.8  # semitones, root mean square, from a straight line
MAX_SYLLABLES: Final = 2  # "um" is one, but the nasal may be taken for another
_BANDS: Final = 24
_FFT: Final = 1024  # samples at 16 kHz
_WINDOW: Final = 640
_BLOCK: Final = 2048  # frames at a time: ten minutes at once would take 0.5 GB
_SMOOTH: Final = 5  # frames: 0.1 s, over which the slope of the pitch is taken


def _mel_weights() -> NDArray[np.float32]:
    """(513, 24): from power at 15.6 Hz steps to density in each band.

    librosa's filters, by the library that is there for the words: librosa's own module imports a
    compiler, 58 MB.
    """
    made = mel_filter_bank(
        _FFT // 2 + 1, _BANDS, 100, 5000, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney"
    )
    return np.asarray(made, np.float32)


def envelope_db(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mel spectrum in dB at 20 ms steps. Returns (n // 320 + 1, 24).

    The same as librosa's `melspectrogram`, whose module compiles for 15 s at its first import in a
    new environment, and so at every cold start of a container.
    """
    window = np.pad(get_window("hann", _WINDOW), (_FFT - _WINDOW) // 2).astype(np.float32)
    weights = _mel_weights()
    frames = sliding_window_view(np.pad(samples, _FFT // 2), _FFT)[::HOP]
    blocks = [
        np.square(np.abs(rfft(frames[i : i + _BLOCK] * window))) @ weights
        for i in range(0, len(frames), _BLOCK)
    ]
    return np.asarray(10 * np.log10(np.maximum(np.concatenate(blocks), 1e-9)), np.float64)


def filled_pauses(
    samples: NDArray[np.float32],
    pitch: Pitch,
    sounding: NDArray[np.bool_],
    nuclei_s: NDArray[np.float64],
) -> list[Interval]:
    """Filled pauses in order, none overlapping another.

    samples: (n,) normalised, 16 kHz; pitch: of the same samples; sounding: (n // 160 + 1,), where
    there is sound, at 10 ms steps; nuclei_s: the time of each syllable.
    """
    count = len(pitch.strength)
    if count < _SMOOTH + 1 or len(samples) < _FFT:
        return []
    shape = envelope_db(samples)[:count]
    steady = pitch.voiced & (_flux_db(shape) < MAX_FLUX_DB)
    voice = runs(pitch.voiced)
    alone = [
        stretch
        for stretch in _between_silences(sounding)
        if _is_held(stretch, pitch, steady) and _count_in(stretch, nuclei_s) <= MAX_SYLLABLES
    ]
    level = steady & (np.abs(_slope(pitch)) < MAX_PITCH_SLOPE)
    drawn_out = [
        Interval(start * HOP_S, end * HOP_S)
        for start, end in runs(level)
        if (end - start) * HOP_S >= _shortest_s(sounding, nuclei_s)
        and any(0 <= (start - first) * HOP_S <= MAX_VOICE_BEFORE_S for first, _ in voice)
    ]
    others = [one for one in drawn_out if not any(_overlap(one, stretch) for stretch in alone)]
    found = [one for one in (*alone, *others) if not _is_close_front(one, shape)]
    return sorted(found, key=lambda filler: filler.start_s)


def _is_close_front(stretch: Interval, shape: NDArray[np.float64]) -> bool:
    """Whether a stretch sounds like [i]: strong at its second formant, weak between the two."""
    centre_hz = _mel_weights().argmax(axis=0) * SAMPLE_RATE_HZ / _FFT
    steps = slice(round(stretch.start_s / HOP_S), round(stretch.end_s / HOP_S) + 1)
    density = np.mean(10 ** (shape[steps] / 10), axis=0)
    low, high = ((centre_hz >= a) & (centre_hz < b) for a, b in (_BELOW_HZ, _FRONT_HZ))
    return bool(10 * np.log10(density[high].mean() / density[low].mean()) > CLOSE_FRONT_DB)


def _shortest_s(sounding: NDArray[np.bool_], nuclei_s: NDArray[np.float64]) -> float:
    """How long a drawn-out vowel of this speaker lasts at least."""
    if len(nuclei_s) < _ENOUGH_SYLLABLES:
        return MIN_DURATION_S
    usual_s = np.count_nonzero(sounding) * intensity.HOP_S / len(nuclei_s)
    return max(MIN_DURATION_S, usual_s)


def _between_silences(sounding: NDArray[np.bool_]) -> list[Interval]:
    """Sounds of 0.24 to 1.2 s with at least 0.15 s of silence on both sides."""
    edges = runs(sounding)
    before = [0, *(end for _, end in edges)]
    after = [*(start for start, _ in edges[1:]), len(sounding)]
    return [
        Interval(start * intensity.HOP_S, end * intensity.HOP_S)
        for (start, end), last, following in zip(edges, before, after, strict=False)
        if ALONE_S[0] <= (end - start) * intensity.HOP_S <= ALONE_S[1]
        and min(start - last, following - end) * intensity.HOP_S >= SILENCE_AROUND_S
    ]


def _is_held(stretch: Interval, pitch: Pitch, steady: NDArray[np.bool_]) -> bool:
    """Whether a stretch is one voice, mostly steady, its pitch a straight line."""
    steps = np.arange(int(np.ceil(stretch.start_s / HOP_S)), int(stretch.end_s / HOP_S) + 1)
    steps = steps[steps < len(steady)]
    voiced = steps[pitch.voiced[steps]]
    if len(voiced) < max(_SMOOTH, MIN_VOICED * len(steps)):
        return False
    semitones = 12 * np.log2(pitch.frequency_hz[voiced])
    line = np.polyfit(voiced * HOP_S, semitones, 1)
    bend = semitones - np.polyval(line, voiced * HOP_S)
    return bool(
        steady[voiced].mean() >= MIN_STEADY
        and abs(line[0]) <= MAX_FALL
        and np.sqrt(np.mean(bend**2)) <= MAX_BEND
    )


def _count_in(stretch: Interval, times_s: NDArray[np.float64]) -> int:
    return int(np.count_nonzero((times_s >= stretch.start_s) & (times_s < stretch.end_s)))


def _overlap(one: Interval, other: Interval) -> bool:
    return one.start_s < other.end_s and other.start_s < one.end_s


def _flux_db(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change of the spectral envelope at each step, without its overall level."""
    shape = np.maximum(shape, shape.max(axis=1, keepdims=True) - 35)  # ignores noise
    shape = shape - shape.mean(axis=1, keepdims=True)
    change = np.sqrt(np.mean(np.diff(shape, axis=0, prepend=shape[:1]) ** 2, axis=1))
    return np.convolve(change, np.ones(3) / 3, mode="same")


def _slope(pitch: Pitch) -> NDArray[np.float64]:
    """Slope of the pitch in semitones per s, over 0.1 s."""
    semitones = 12 * np.log2(pitch.frequency_hz)
    half = _SMOOTH // 2
    padded = np.pad(semitones, half, mode="edge")
    return np.asarray((padded[2 * half :] - padded[: -2 * half]) / (2 * half * HOP_S))
