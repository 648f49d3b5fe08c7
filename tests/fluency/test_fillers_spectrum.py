"""The mel spectrum of the filler detector is librosa's, without its compile time."""

import librosa
import numpy as np
from fillers import envelope_db


def test_the_envelope_is_librosas() -> None:
    """Equal to `melspectrogram` within 0.01 dB, frame for frame, over a block's edge too."""
    rng = np.random.default_rng(3)
    samples = (rng.standard_normal(16_000 * 45) * 0.1).astype(np.float32)
    reference = librosa.feature.melspectrogram(
        y=samples,
        sr=16_000,
        n_fft=1024,
        win_length=640,
        hop_length=320,
        n_mels=24,
        fmin=100,
        fmax=5000,
    )
    ours = envelope_db(samples)
    theirs = 10 * np.log10(np.maximum(reference.T, 1e-9))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 0.01
