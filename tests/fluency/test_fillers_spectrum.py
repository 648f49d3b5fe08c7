"""The filler detector: its mel spectrum is librosa's; a slow speaker's vowels are no fillers."""

from pathlib import Path

import made_audio
import numpy as np
import pitch
import pytest
from fillers import envelope_db, filled_pauses


def test_the_envelope_is_librosas(golden: Path) -> None:
    """Equal to what librosa 0.11.0 made of the same noise, within 0.01 dB: at the start, over the
    edge between two blocks, and at the end. tests/golden/fluency/make.py has written it."""
    rng = np.random.default_rng(3)
    samples = (rng.standard_normal(16_000 * 45) * 0.1).astype(np.float32)
    ours = envelope_db(samples)
    theirs = np.load(golden / "noise_mel_db.npy")
    assert ours.shape == (16_000 * 45 // 320 + 1, theirs.shape[1])
    parts = np.concatenate([ours[:40], ours[2028:2068], ours[-40:]])
    assert np.abs(parts - theirs).max() < 0.01


@pytest.mark.parametrize(("vowel_s", "count"), [(0.15, 1), (0.4, 0)])
def test_a_filler_is_longer_than_the_speakers_syllables(vowel_s: float, count: int) -> None:
    """The same vowel of 0.35 s, among short syllables and among those of somebody who drawls."""
    rest = np.concatenate([made_audio.vowel(vowel_s, 140.0), made_audio.silence(0.05)])
    samples = np.concatenate([*[rest] * 6, made_audio.vowel(0.35), *[rest] * 6])
    nuclei_s = np.array([index * (vowel_s + 0.05) + vowel_s / 2 for index in range(12)])
    everywhere = np.ones(len(samples) // 160 + 1, bool)
    found = filled_pauses(samples, pitch.track(samples), everywhere, nuclei_s)
    at_s = 6 * (vowel_s + 0.05) + 0.175
    assert sum(one.start_s < at_s < one.end_s for one in found) == count
