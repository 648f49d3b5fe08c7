"""What an answer says of its own worth: figures, warnings, and why a score is withheld."""

from typing import Final

from asr import Transcript
from outputs import Quality
from quality import SoundQuality

NO_SPEECH_FOUND: Final = "no speech was found in the recording"
MIN_SYLLABLES: Final = 5  # with fewer, one error of the detector changes a rate too much
# 7,000 excerpts of seven recordings against the score of the whole: from 3 s on nine of ten are
# within 10.5 points, from 1.5 s within 14, and below 1 s they are 16 too high in the mean.
MIN_TIME_S: Final = 3.0
SHORT_S: Final = 2.0
# A reading of 44 s with 17 pauses, in pink noise: at 13 dB 1 % of the syllables and one pause
# differ, at 9.5 dB 9 % and 7 pauses, at 7 dB a fifth. White noise costs as much 4 dB lower.
LOUD_ROOM_DB: Final = 15.0
TOO_LOUD_ROOM_DB: Final = 8.0
NARROW_HZ: Final = 3000
CLIPPED: Final = 0.01  # see quality.py
FEW_HEARD: Final = 0.7
TOO_FEW_HEARD: Final = 0.5
# Syllables of the words over those of the signal: 0.67 to 1.17 of fourteen recordings of 3 s and
# more, with whisper-base.
MANY_WORDS: Final = 1.4
FEW_WORDS: Final = 0.6


def output(
    sound: SoundQuality, understood: Transcript | None, fit: float | None, by_words: float | None
) -> Quality:
    """The figures. fit: syllables of the words over those of the signal; by_words: the share of the
    syllables where the words decided.
    """
    confidence = understood.language_probability if understood else None
    return Quality(
        signal_to_noise_db=_round(sound.signal_to_noise_db, 1),
        bandwidth_hz=sound.bandwidth_hz,
        clipped_share=_round(sound.clipped_share, 4),
        heard_share=round(sound.heard_share, 3),
        language_confidence=_round(confidence, 3),
        words_to_syllables=_round(fit, 2),
        syllables_by_words=_round(by_words, 2),
    )


def withheld(
    sound: SoundQuality, syllables: int, total_time_s: float, fit: float | None
) -> str | None:
    """Why there is no score, or None if there is one."""
    noise = sound.signal_to_noise_db
    if syllables < MIN_SYLLABLES or total_time_s < MIN_TIME_S:
        return f"too little speech for a score: at least {MIN_TIME_S:.0f} s are needed"
    if noise is not None and noise < TOO_LOUD_ROOM_DB:
        return f"the room is too loud for a score: the speech is {noise:.0f} dB above it"
    if sound.heard_share < TOO_FEW_HEARD:
        return (
            f"only {100 * sound.heard_share:.0f} % of what is as loud as the speech was taken for "
            "speech"
        )
    if fit is not None and fit > MANY_WORDS:
        return f"the words have {fit:.1f} times as many syllables as were found in the signal"
    return None


def warnings(sound: SoundQuality, total_time_s: float, fit: float | None) -> list[str]:
    """What a person should know before they use the measures."""
    found = []
    noise = sound.signal_to_noise_db
    if total_time_s < SHORT_S:
        found.append(
            f"the speech lasts {total_time_s:.1f} s: where so short a recording is fast, "
            "a fifth to half of the syllables may be missed"
        )
    if noise is not None and noise < LOUD_ROOM_DB:
        found.append("the room is loud: quiet sounds may be missed and pauses be less exact")
    if sound.bandwidth_hz is not None and sound.bandwidth_hz < NARROW_HZ:
        found.append(f"the sound ends at {sound.bandwidth_hz} Hz: words may be wrong")
    if sound.clipped_share is not None and sound.clipped_share > CLIPPED:
        found.append("the recording is overdriven: lower the microphone's level")
    if sound.heard_share < FEW_HEARD:
        found.append(
            f"{100 * (1 - sound.heard_share):.0f} % of what is as loud as the speech was not taken "
            "for speech: music, noise, or a voice that was missed"
        )
    if fit is not None and fit < FEW_WORDS:
        found.append(
            f"the words have {100 * fit:.0f} % of the syllables of the signal: some are missing, "
            "or there are other sounds"
        )
    return found


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
