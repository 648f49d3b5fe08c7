"""Writes librosa's mel spectrum of a seeded noise: `noise_mel_db.npy`, (120, 24) float32, in dB.

Run by `make golden` only: librosa compiles for 20 s at its first use in a new environment.
"""

from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray

OUT = Path(__file__).with_name("noise_mel_db.npy")


def noise() -> NDArray[np.float32]:
    """45 s at 16 kHz: more than fillers.py takes at a time."""
    rng = np.random.default_rng(3)
    return (rng.standard_normal(16_000 * 45) * 0.1).astype(np.float32)


def main() -> None:
    """40 frames each of the start, the edge between two blocks, and the end."""
    power = librosa.feature.melspectrogram(
        y=noise(),
        sr=16_000,
        n_fft=1024,
        win_length=640,
        hop_length=320,
        n_mels=24,
        fmin=100,
        fmax=5000,
    )
    frames = 10 * np.log10(np.maximum(power.T, 1e-9))
    assert len(frames) == 16_000 * 45 // 320 + 1
    np.save(OUT, np.concatenate([frames[:40], frames[2028:2068], frames[-40:]]))


if __name__ == "__main__":
    main()
