"""How far a recording can be trusted: its noise, its band, clipping, and how much was heard."""

from dataclasses import dataclass
from typing import Final

import intensity
import numpy as np
import pauses
from intensity import ACTIVE_LEVEL_DB, HOP
from numpy.typing import NDArray
from scipy.signal import welch

SAMPLE_RATE_HZ: Final = 16_000
# A sound this far below the speech's level, or 6 dB above the room, could be speech.
_SPEECHLIKE_DB: Final = -15.0
# The band ends where the spectrum of speech stays this far below its strongest part.
_BAND_DB: Final = -60.0
_FFT: Final = 512  # 31 Hz
# Samples within 1.4 dB of the level that one in a thousand exceeds: of 24 recordings at most 0.7 %;
# 1 to 29 % of two that were cut off 9 dB and more below their peak, as MP3 too.
_EDGE_QUANTILE: Final = 0.999
_TOP: Final = 0.85


@dataclass(frozen=True)
class SoundQuality:
    """What the signal says of itself; None where it cannot be measured.

    signal_to_noise_db: the loudest second of speech over the room, both below 3.4 kHz.
    bandwidth_hz: up to where there is sound, at most 8000. clipped_share: of the samples of
    speech, in [0, 1]. heard_share: of the time that is loud enough for speech, what was taken for
    speech, in [0, 1].
    """

    signal_to_noise_db: float | None
    bandwidth_hz: int | None
    clipped_share: float | None
    heard_share: float


NO_SPEECH: Final = SoundQuality(None, None, None, 0.0)


def of(
    samples: NDArray[np.float32],
    levelled: NDArray[np.float32],
    speech: NDArray[np.bool_],
    noise_db: float | None,
) -> SoundQuality:
    """Measure it. samples: (n,) as decoded, 16 kHz; levelled: the same, its speech at -20 dB.

    speech: (n // 160 + 1,), where there is speech, at 10 ms steps; noise_db: of the room.
    """
    spoken = np.repeat(speech, HOP)[: len(samples)]
    return SoundQuality(
        None if noise_db is None else ACTIVE_LEVEL_DB - noise_db,
        _bandwidth_hz(samples[spoken]),
        _clipped_share(samples[spoken]),
        _heard_share(levelled, pauses.bridged(speech), noise_db),
    )


def _bandwidth_hz(samples: NDArray[np.float32]) -> int | None:
    """The highest frequency within 60 dB of the strongest, to 100 Hz."""
    if len(samples) < _FFT:
        return None
    frequency_hz, power = welch(samples, SAMPLE_RATE_HZ, nperseg=_FFT)
    strong = power > power.max() * 10 ** (_BAND_DB / 10)
    return int(round(float(frequency_hz[np.flatnonzero(strong)[-1]]), -2)) if strong.any() else None


def _clipped_share(samples: NDArray[np.float32]) -> float | None:
    """The samples near the edge of the range: of speech hardly any, of clipped speech many."""
    if len(samples) == 0:
        return None
    magnitude = np.abs(samples)
    edge = float(np.quantile(magnitude, _EDGE_QUANTILE))
    return float(np.mean(magnitude >= _TOP * edge)) if edge > 0 else 0.0


def _heard_share(
    levelled: NDArray[np.float32], speech: NDArray[np.bool_], noise_db: float | None
) -> float:
    floor_db = ACTIVE_LEVEL_DB + _SPEECHLIKE_DB
    if noise_db is not None:
        floor_db = max(floor_db, noise_db + pauses.ABOVE_NOISE_DB)
    loud = intensity.contour(levelled, pauses.FINE_PITCH_HZ) >= floor_db
    count = np.count_nonzero(loud)
    return float(np.count_nonzero(loud & speech) / count) if count else 1.0
