"""The mel spectrum of the filler detector is librosa's, without its compile time."""

from pathlib import Path

import numpy as np
from fillers import envelope_db


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
