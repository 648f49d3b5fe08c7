"""Every answer says how far to trust it: figures of known sound, warnings, no score rather than a
wrong one.
"""

from collections.abc import Callable
from dataclasses import replace

import acoustics
import bands
import made_audio
import numpy as np
import pytest
import trust
from conftest import Samples
from quality import SoundQuality
from vad import SileroVad

GOOD = SoundQuality(40.0, 8000, 0.0, 1.0)


@pytest.fixture(scope="module")
def voice(recording: Callable[[str], Samples]) -> Samples:
    return recording("two_cities.flac")[: 12 * 16_000]


def quality_of(samples: Samples, vad: SileroVad) -> SoundQuality:
    heard = acoustics.analyse(samples, vad, 0.25)
    assert heard is not None
    return heard.quality


def test_a_good_recording_has_no_warning(voice: Samples, vad: SileroVad) -> None:
    """A reading in a studio: nothing to say."""
    found = quality_of(voice, vad)
    assert trust.warnings(found, 12.0, 1.0) == []
    assert trust.withheld(found, 40, 12.0, 1.0) is None


@pytest.mark.parametrize("below_db", [10, 20, 30])
def test_the_signal_to_noise_ratio_is_measured(
    voice: Samples, vad: SileroVad, below_db: float
) -> None:
    """White noise below 3.4 kHz, so far under the loudest second: to 3 dB."""
    brought = acoustics.level.bring(voice, vad)
    assert brought is not None
    hiss = bands.telephone(made_audio.noise(12.0, 0.0))
    hiss *= 10 ** ((-20 - below_db) / 20) / hiss.std()
    found = quality_of(brought.samples + hiss, vad)
    assert found.signal_to_noise_db == pytest.approx(below_db, abs=3)


def test_the_band_is_measured(voice: Samples, vad: SileroVad) -> None:
    """A telephone's ends at 3.5 kHz, a studio's far above."""
    narrow = quality_of(bands.telephone(voice), vad).bandwidth_hz
    wide = quality_of(voice, vad).bandwidth_hz
    assert narrow is not None
    assert wide is not None
    assert 3000 < narrow < 4000
    assert wide > 6000


def test_an_overdriven_recording_is_said(voice: Samples, vad: SileroVad) -> None:
    """Cut off 12 dB below its peak, at whatever level it is stored."""
    edge = float(np.abs(voice).max()) / 4
    found = quality_of(0.3 * np.clip(voice, -edge, edge), vad)
    assert any("overdriven" in warning for warning in trust.warnings(found, 12.0, 1.0))


def test_what_was_not_taken_for_speech_is_said(voice: Samples, vad: SileroVad) -> None:
    """As much music as speech, as loud: a warning, and no score."""
    music = made_audio.music(12.0, "piano")
    music *= voice.std() / music.std()
    found = quality_of(np.concatenate([voice, music]).astype(np.float32), vad)
    assert 0.25 < found.heard_share < trust.FEW_HEARD
    assert any("not taken for speech" in warning for warning in trust.warnings(found, 12.0, 1.0))


@pytest.mark.parametrize(
    ("sound", "syllables", "total_s", "fit", "reason"),
    [
        (GOOD, 4, 10.0, None, "too little speech"),
        (GOOD, 40, trust.MIN_TIME_S - 0.1, None, "too little speech"),
        (replace(GOOD, signal_to_noise_db=3.0), 40, 10.0, None, "3 dB above"),
        (replace(GOOD, heard_share=0.4), 40, 10.0, None, "only 40 %"),
        (GOOD, 40, 10.0, 1.8, "1.8 times as many syllables"),
        (GOOD, 40, 10.0, 1.0, None),
        (GOOD, 40, 10.0, 0.3, None),  # Whisper left words out: the signal is still right
    ],
)
def test_a_score_is_withheld_rather_than_wrong(
    sound: SoundQuality, syllables: int, total_s: float, fit: float | None, reason: str | None
) -> None:
    """With the reason; without one there is a score."""
    found = trust.withheld(sound, syllables, total_s, fit)
    assert (found is None) if reason is None else (found is not None and reason in found)


@pytest.mark.parametrize(
    ("sound", "total_s", "fit", "warning"),
    [
        (GOOD, 1.5, None, "lasts 1.5 s"),
        (replace(GOOD, signal_to_noise_db=12.0), 10.0, None, "room is loud"),
        (replace(GOOD, bandwidth_hz=2500), 10.0, None, "ends at 2500 Hz"),
        (GOOD, 10.0, 0.4, "40 % of the syllables"),
    ],
)
def test_each_doubt_has_its_warning(
    sound: SoundQuality, total_s: float, fit: float | None, warning: str
) -> None:
    """One, in words."""
    (found,) = trust.warnings(sound, total_s, fit)
    assert warning in found
