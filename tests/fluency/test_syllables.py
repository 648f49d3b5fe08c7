"""Syllable nuclei and intensity against Praat, and where the count is known."""

from collections.abc import Callable

import acoustics
import creak
import intensity
import made_audio
import numpy as np
import parselmouth
import pitch
import pytest
import syllables
from conftest import GOLDEN, Samples
from parselmouth.praat import call
from vad import SileroVad

Recording = Callable[[str], Samples]
# Praat hears the rumble of cold.flac, which is below speech, as its loudest part.
RECORDINGS = sorted(
    p.name for p in GOLDEN.iterdir() if p.suffix in (".wav", ".flac") and p.name != "cold.flac"
)


def praat_nuclei(samples: Samples) -> list[float]:
    """de Jong & Wempe's analysis with Praat itself; the last peak counts, as in the package."""
    sound = parselmouth.Sound(samples.astype(float), 16_000)
    contour = sound.to_intensity(50.0)
    top = call(contour, "Get quantile", 0, 0, 0.99)
    floor = max(top - 25, call(contour, "Get minimum", 0, 0, "Parabolic"))
    relative = -25 - (call(contour, "Get maximum", 0, 0, "Parabolic") - top)
    grid = call(contour, "To TextGrid (silences)", relative, 0.3, 0.1, "silent", "sounding")
    voice = sound.to_pitch_ac(0.02, 30.0, 4, False, 0.03, 0.25, 0.01, 0.35, 0.25, 450.0)
    values, times = contour.values[0], contour.xs()
    peaks = [
        i
        for i in range(1, len(values) - 1)
        if values[i - 1] < values[i] >= values[i + 1] and values[i] > floor
    ]
    ends = [*peaks[1:], len(values) - 1]
    kept = [
        i for i, end in zip(peaks, ends, strict=True) if values[i] - values[i : end + 1].min() > 2
    ]
    return [
        times[i]
        for i in kept
        if not np.isnan(voice.get_value_at_time(times[i]))
        and call(grid, "Get label of interval", 1, call(grid, "Get interval at time", 1, times[i]))
        == "sounding"
    ]


def heard(samples: Samples, vad: SileroVad) -> list[float]:
    found = acoustics.analyse(samples, vad, 0.25)
    return [] if found is None else found.nuclei_s


def test_syllables_agree_with_praat(recording: Recording, vad: SileroVad) -> None:
    """Over all recordings: total within 5 %, correlation of the counts at least 0.95.

    By recording, which long ones make easy, and by stretches of 2 s. Of Praat's syllables 95 % are
    found within 50 ms.
    """
    ours = [np.array(heard(recording(name), vad)) for name in RECORDINGS]
    praat = [np.array(praat_nuclei(recording(name))) for name in RECORDINGS]
    table = {
        name: (len(mine), len(theirs))
        for name, mine, theirs in zip(RECORDINGS, ours, praat, strict=True)
    }
    totals = np.array(list(table.values()))
    assert abs(np.divide(*totals.sum(axis=0)) - 1) <= 0.05, table
    assert np.corrcoef(totals.T)[0, 1] >= 0.95, table
    stretches: list[list[int]] = [[], []]
    for name, *both in zip(RECORDINGS, ours, praat, strict=True):
        edges = np.arange(0, len(recording(name)) / 16_000, 2.0)  # what is left over is left out
        for counts, times in zip(stretches, both, strict=True):
            counts.extend(np.histogram(times, edges)[0].tolist())
    assert np.corrcoef(stretches)[0, 1] >= 0.95
    matched = [
        np.abs(mine - time).min() < 0.05
        for mine, theirs in zip(ours, praat, strict=True)
        for time in theirs
    ]
    assert np.mean(matched) >= 0.95


def test_syllables_agree_with_a_count_by_hand(recording: Recording, vad: SileroVad) -> None:
    """The five Austen lines have 99 syllables: within 5 %."""
    total = sum(len(heard(recording(n), vad)) for n in RECORDINGS if n.startswith("austen"))
    assert abs(total / 99 - 1) <= 0.05, total


@pytest.mark.parametrize("count", [6, 7, 12, 25])
@pytest.mark.parametrize("off_s", [0.08, 0.12, 0.16])
def test_bursts_of_voice_are_counted_exactly(count: int, off_s: float) -> None:
    """Synthetic vowels with short gaps: as many syllables as there are vowels.

    Without the VAD, which rightly takes one vowel over and over for no speech.
    """
    sound = np.concatenate(
        [made_audio.silence(0.5), made_audio.bursts(count, 0.12, off_s), made_audio.silence(0.5)]
    )
    contour = intensity.contour(sound)
    voicing = pitch.track(sound).strength_at(np.arange(len(contour)) * 0.01)
    everywhere = np.ones(len(contour), bool)
    nuclei = syllables.nuclei(contour, voicing, everywhere, syllables.threshold_db(contour))
    middles = 0.5 + 0.06 + np.arange(count) * (0.12 + off_s)
    assert nuclei == pytest.approx(middles, abs=0.04)


def test_a_creak_is_a_syllable_and_a_hiss_is_none(recording: Recording, vad: SileroVad) -> None:
    """The last word of a line ("for them") is a creak without a pitch; the [tʃ] of "much" has one
    by chance.
    """
    found = np.array(heard(recording("austen-0870.wav"), vad))
    assert np.abs(found - 6.71).min() <= 0.03
    assert np.abs(found - 4.25).min() > 0.1


@pytest.mark.parametrize("name", ["voices/whisper.flac", "voices/falsetto.flac", "phone_call.flac"])
def test_neither_whisper_nor_a_high_voice_creaks(recording: Recording, name: str) -> None:
    """In 3 of 100 places at most are there three pulses that look alike."""
    samples = recording(name)
    places = np.arange(0.2, len(samples) / 16_000 - 0.2, 0.1)
    assert np.mean([creak.is_creak(samples, float(place)) for place in places]) <= 0.03


def test_pulses_with_the_sound_of_a_vowel_are_a_creak() -> None:
    """Alike pulses at 25 to 50 Hz are one; the clicks of noise and one burst are not."""
    random = np.random.default_rng(7)
    time = np.arange(400) / 16_000
    pulse = (np.exp(-time * 250) * np.sin(2 * np.pi * 600 * time)).astype(np.float32)
    for gap in (330, 480, 640):
        sound = np.zeros(16_000, np.float32)
        for start in range(5000, 10_000, gap):
            sound[start : start + 400] += pulse
        assert creak.is_creak(sound, 0.47)
        assert not creak.is_creak(sound, 0.9)
    assert not creak.is_creak(random.normal(0, 0.1, 16_000).astype(np.float32), 0.5)
    single = np.zeros(16_000, np.float32)
    single[8000:8400] = pulse
    assert not creak.is_creak(single, 0.51)


@pytest.mark.parametrize("name", RECORDINGS)
def test_intensity_is_praats(recording: Recording, name: str) -> None:
    """The contour equals Praat's To Intensity (50 Hz, no mean subtracted) to 0.2 dB on average."""
    samples = recording(name)
    praat = parselmouth.Sound(samples.astype(float), 16_000).to_intensity(50.0, 0.01, False)
    theirs = praat.values[0] + 20 * np.log10(2e-5)  # Praat's reference is 20 µPa
    ours = intensity.contour(samples)
    at = np.interp(praat.xs(), np.arange(len(ours)) * 0.01, ours)
    assert np.abs(at - theirs).mean() < 0.2
    assert abs(np.mean(at - theirs)) < 0.02


@pytest.mark.parametrize("name", RECORDINGS)
def test_pitch_is_praats(recording: Recording, name: str) -> None:
    """At Praat's own frame times: 98 % voiced alike; of those 99 % within 0.1 semitones."""
    samples = recording(name)
    praat = parselmouth.Sound(samples.astype(float), 16_000).to_pitch_ac(
        pitch.HOP_S, pitch.FLOOR_HZ, voicing_threshold=pitch.VOICED, pitch_ceiling=pitch.CEILING_HZ
    )
    theirs = praat.selected_array["frequency"]
    first_s = praat.xs()[0]  # its frames are centred in the recording, ours begin at 0
    shift = round(first_s % pitch.HOP_S * 16_000)
    ours = pitch.track(samples[shift:])
    at = np.arange(len(theirs)) + round((first_s - shift / 16_000) / pitch.HOP_S)
    both = ours.voiced[at] & (theirs > 0)
    assert np.mean(ours.voiced[at] == (theirs > 0)) >= 0.98
    semitones = np.abs(12 * np.log2(ours.frequency_hz[at][both] / theirs[both]))
    assert np.mean(semitones < 0.1) >= 0.99, np.quantile(semitones, (0.5, 0.9, 0.99))


@pytest.mark.parametrize("frequency", [70.0, 110.0, 220.0, 440.0, 580.0])
def test_the_pitch_of_a_known_vowel(frequency: float) -> None:
    """A synthetic vowel's pitch is found to 1 %."""
    found = pitch.track(made_audio.vowel(0.5, frequency))
    assert found.voiced.mean() > 0.8
    assert np.median(found.frequency_hz[found.voiced]) == pytest.approx(frequency, rel=0.01)
