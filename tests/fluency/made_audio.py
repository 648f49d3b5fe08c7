"""Recordings made for one test: signals of known content and files of every kind."""

import wave
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from espeak import synthesise
from numpy.typing import NDArray

RATE = 16_000
Samples = NDArray[np.float32]


def silence(duration_s: float) -> Samples:
    """Digital silence."""
    return np.zeros(round(duration_s * RATE), np.float32)


def noise(duration_s: float, level_db: float = -30.0, seed: int = 0) -> Samples:
    """White noise of a given level re full scale."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(round(duration_s * RATE)) * 10 ** (level_db / 20)
    return values.astype(np.float32)


OPEN_VOWEL = ((700, 90, 1.0), (1200, 110, 0.5), (2500, 150, 0.2))


def vowel(
    duration_s: float,
    pitch_hz: float = 120.0,
    level_db: float = -20.0,
    formants: Sequence[tuple[int, int, float]] = OPEN_VOWEL,
) -> Samples:
    """A steady, voice-like sound: harmonics under formants (Hz, width, height), with soft edges."""
    time = np.arange(round(duration_s * RATE)) / RATE
    sound = np.zeros_like(time)
    for harmonic in range(1, int(4000 / pitch_hz)):
        frequency = harmonic * pitch_hz
        gain = sum(
            height / (1 + ((frequency - formant) / width) ** 2)
            for formant, width, height in formants
        )
        sound += gain * np.sin(2 * np.pi * frequency * time)
    edge = min(len(time) // 4, round(0.02 * RATE))
    ramp = np.ones(len(time))
    ramp[:edge] = np.linspace(0, 1, edge)
    ramp[-edge:] = np.linspace(1, 0, edge)
    sound *= ramp
    sound *= 10 ** (level_db / 20) / np.sqrt(np.mean(sound**2))
    return sound.astype(np.float32)


def bursts(count: int, on_s: float = 0.12, off_s: float = 0.1) -> Samples:
    """As many vowels as `count`, with silence of off_s between them."""
    return np.concatenate([part for _ in range(count) for part in (vowel(on_s), silence(off_s))])


@cache
def say(text: str, words_per_minute: int = 160, voice: str = "en-us") -> Samples:
    """Speech of espeak-ng, at 16 kHz; the same each time (the synthesiser's own varies)."""
    raw, rate_hz = synthesise(text, words_per_minute, voice)
    return resample(raw, rate_hz, RATE)


def music(duration_s: float, kind: str, seed: int = 0) -> Samples:
    """Chords and drums at 120 beats a minute. kind: "pad", "piano", or "melody" with vibrato."""
    random = np.random.default_rng(seed)
    beat = RATE // 2
    beats = int(duration_s * 2)
    sound = np.zeros(beats * beat)
    time = np.arange(beat) / RATE
    for index in range(beats):
        here = sound[index * beat : (index + 1) * beat]
        root = (220.0, 196.0, 174.6, 261.6)[index // 4 % 4]
        fade = np.exp(-3 * time) if kind == "piano" else np.minimum(1, 50 * time)
        for frequency in (root, root * 1.26, root * 1.498):
            for harmonic in range(1, 8):
                tone = np.sin(2 * np.pi * frequency * harmonic * time + harmonic)
                here += 0.1 * fade * tone / harmonic**1.3
        if kind == "melody":
            note = 2 * root * random.choice([1, 1.125, 1.26, 1.5])
            phase = 2 * np.pi * np.cumsum(note * (1 + 0.01 * np.sin(10 * np.pi * time))) / RATE
            for harmonic in range(1, 12):
                here += 0.15 / harmonic * np.sin(harmonic * phase) * np.minimum(1, 30 * time)
        kick = np.sin(2 * np.pi * (60 + 80 * np.exp(-30 * time)) * time) * np.exp(-20 * time)
        snare = random.standard_normal(beat) * np.exp(-time * RATE / (600 if index % 2 else 150))
        here += 0.6 * kick + 0.25 * snare
    return (0.7 * sound / np.abs(sound).max()).astype(np.float32)


def trimmed(samples: Samples) -> Samples:
    """Without the silence at the ends, 40 dB below full scale."""
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1]


def pink(duration_s: float, level_db: float = -30.0, seed: int = 0) -> Samples:
    """Pink noise, as loud in each octave from 20 Hz on, of a given level re full scale."""
    spectrum = np.fft.rfft(noise(duration_s, 0.0, seed))
    frequency = np.fft.rfftfreq(round(duration_s * RATE), 1 / RATE)
    values = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20)), round(duration_s * RATE))
    return (values / values.std() * 10 ** (level_db / 20)).astype(np.float32)


def resample(samples: Samples, rate_from: int, rate_to: int) -> Samples:
    """Another sampling rate, by scipy's polyphase filter."""
    from math import gcd

    from scipy.signal import resample_poly

    common = gcd(rate_from, rate_to)
    made = resample_poly(samples, rate_to // common, rate_from // common)
    return np.asarray(made, np.float32)


def write_wav(path: Path, samples: Samples, rate: int = RATE) -> Path:
    """A 16-bit WAV. samples: (n,) or (channels, n)."""
    channels = np.atleast_2d(samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(channels.T, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def encode(samples: Samples, container: str, codec: str, rate: int = RATE, **options: Any) -> bytes:
    """The bytes of a file in a container, encoded by FFmpeg. samples: (n,) at 16 kHz."""
    target = BytesIO()
    with av.open(target, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = RATE
        resampler = av.AudioResampler(
            stream.format or "fltp", "mono", rate, frame_size=stream.frame_size or 1024
        )
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return target.getvalue()
