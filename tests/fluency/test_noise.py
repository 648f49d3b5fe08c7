"""Noise subtraction and the bands, on signals whose parts are known."""

import bands
import made_audio
import noise
import numpy as np
import pytest
from conftest import Samples
from numpy.typing import NDArray


@pytest.fixture(scope="module")
def parts() -> tuple[Samples, Samples, NDArray[np.bool_]]:
    """A vowel between two seconds of silence each, the noise over all of it, where it is alone."""
    gap = made_audio.silence(2)
    voice = np.concatenate([gap, made_audio.vowel(2.0), gap])
    quiet = np.ones(len(voice) // 160 + 1, bool)
    quiet[190:411] = False
    return voice, made_audio.noise(6.0, -32.0), quiet


def level_db(samples: Samples) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


def test_the_noise_goes_and_the_voice_stays(
    parts: tuple[Samples, Samples, NDArray[np.bool_]],
) -> None:
    """12 dB of signal over noise: 15 dB less of it in the silence, half as much in the vowel."""
    voice, hiss, quiet = parts
    clean = noise.subtract(voice + hiss, quiet)
    assert level_db(clean[:30_000]) < level_db(hiss[:30_000]) - 15
    spoken = slice(33_000, 63_000)
    error = level_db(clean[spoken] - voice[spoken])
    assert error < level_db(hiss[spoken]) - 3
    assert level_db(clean[spoken]) == pytest.approx(level_db(voice[spoken]), abs=0.5)


def test_without_noise_nothing_changes(parts: tuple[Samples, Samples, NDArray[np.bool_]]) -> None:
    """The overlapping windows add up to one; too short a silence leaves all as it is."""
    voice, hiss, quiet = parts
    assert np.abs(noise.subtract(voice, quiet) - voice).max() < 1e-4
    loud = voice + hiss
    short = np.zeros_like(quiet)
    short[:15] = True
    assert noise.subtract(loud, short) is loud


def test_blocks_leave_no_seam(
    parts: tuple[Samples, Samples, NDArray[np.bool_]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in pieces of 50 frames as in one."""
    voice, hiss, quiet = parts
    whole = noise.subtract(voice + hiss, quiet)
    monkeypatch.setattr(noise, "_BLOCK", 50)
    assert np.abs(noise.subtract(voice + hiss, quiet) - whole).max() < 1e-5


@pytest.mark.parametrize(
    ("frequency_hz", "telephone_db", "fricatives_db"),
    [(200, 0, -55), (1000, 0, -55), (2600, 0, 0), (3700, -55, -55), (6000, -55, -55)],
)
def test_the_bands_pass_what_they_should(
    frequency_hz: int, telephone_db: float, fricatives_db: float
) -> None:
    """0 dB within a band, at most -55 dB beyond its edge; length and phase are kept."""
    tone = np.sin(2 * np.pi * frequency_hz * np.arange(16_000) / 16_000).astype(np.float32)
    for band, wanted in ((bands.telephone, telephone_db), (bands.fricatives, fricatives_db)):
        made = band(tone)
        assert len(made) == len(tone)
        middle = slice(1000, -1000)
        gain = level_db(made[middle]) - level_db(tone[middle])
        if wanted == 0:
            assert gain == pytest.approx(0, abs=0.1)
            assert np.abs(made[middle] - tone[middle]).max() < 0.02
        else:
            assert gain < wanted
