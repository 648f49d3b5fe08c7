"""Every kind of file that browsers and phones record, and awkward signals inside."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import acoustics
import audio
import made_audio
import numpy as np
import pytest
from conftest import Samples
from hypothesis import given, settings
from hypothesis import strategies as st
from measures import measure
from vad import SileroVad

Recording = Callable[[str], Samples]

# container, codec, rate, how much louder the original is than the coding error, in dB
KINDS = [
    ("wav", "pcm_u8", 16_000, 20),
    ("wav", "pcm_s16le", 48_000, 40),
    ("wav", "pcm_s24le", 44_100, 40),
    ("wav", "pcm_s32le", 16_000, 60),
    ("wav", "pcm_f32le", 16_000, 60),
    ("wav", "pcm_mulaw", 16_000, 20),
    ("flac", "flac", 44_100, 40),
    ("aiff", "pcm_s16be", 44_100, 40),
    ("mp3", "libmp3lame", 44_100, 3),
    ("adts", "aac", 44_100, 3),
    ("ipod", "aac", 44_100, 3),
    ("webm", "libopus", 48_000, 3),
    ("ogg", "libopus", 48_000, 3),
    ("ipod", "alac", 44_100, 40),
]


@pytest.mark.parametrize(("container", "codec", "rate", "snr_db"), KINDS)
def test_every_container_is_read(  # noqa: PLR0917
    tmp_path: Path, recording: Recording, container: str, codec: str, rate: int, snr_db: float
) -> None:
    """Named .wav all of them: the samples come back, the length to 0.1 s."""
    original = recording("austen-0880.wav")
    path = tmp_path / "voice.wav"
    path.write_bytes(made_audio.encode(original, container, codec, rate))
    decoded = audio.read(path)
    assert decoded.duration_s == pytest.approx(len(original) / 16_000, abs=0.1)
    size = 2 * len(original)
    cross = np.fft.rfft(decoded.samples, size) * np.fft.rfft(original, size).conj()
    lag = int(np.argmax(np.fft.irfft(cross)))
    lag = lag if lag < len(original) else lag - size
    assert abs(lag) < 2000  # an encoder's delay of up to 0.13 s
    shifted = np.roll(np.pad(decoded.samples, (0, 4000)), -lag)[: len(original)]
    error = np.mean((shifted - original)[800:-2400] ** 2) + 1e-12
    assert 10 * np.log10(np.mean(original**2) / error) > snr_db


def test_a_webm_without_a_length_is_read(tmp_path: Path, recording: Recording) -> None:
    """As MediaRecorder writes it: a live stream with no duration and no index."""
    original = recording("austen-0880.wav")
    path = tmp_path / "voice.wav"
    path.write_bytes(made_audio.encode(original, "webm", "libopus", 48_000, live="1"))
    import av

    with av.open(str(path)) as container:
        assert container.duration is None
    assert audio.read(path).duration_s == pytest.approx(len(original) / 16_000, abs=0.1)


def test_a_picture_of_sound_is_no_recording(tmp_path: Path) -> None:
    """A WebM that holds a film without sound is refused."""
    import av

    path = tmp_path / "film.webm"
    with av.open(str(path), "w", format="webm") as output:
        stream: Any = output.add_stream("libvpx", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            picture = np.zeros((64, 64, 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    with pytest.raises(audio.InvalidInput, match="must hold sound"):
        audio.read(path)


@pytest.mark.parametrize("kind", ["mono", "same", "left only", "out of phase", "three"])
def test_channels_never_cancel(tmp_path: Path, recording: Recording, kind: str) -> None:
    """One voice on any channels sounds as loud as one voice, even wired the wrong way round."""
    voice = recording("austen-0880.wav")
    quiet = np.zeros_like(voice)
    channels = {
        "mono": voice,
        "same": np.stack([voice, voice]),
        "left only": np.stack([voice, quiet]),
        "out of phase": np.stack([voice, -voice]),
        "three": np.stack([voice, voice, voice]),
    }[kind]
    read = audio.read(made_audio.write_wav(tmp_path / "a.wav", channels)).samples
    correlation = np.corrcoef(np.abs(read[: len(voice)]), np.abs(voice[: len(read)]))[0, 1]
    assert correlation > 0.99
    assert np.std(read) > 0.4 * np.std(voice)


MAGICS = ["", "RIFF0000WAVE", "OggS", "fLaC", "ID3", "0000ftyp"]


@given(
    st.binary(max_size=400),
    st.sampled_from(MAGICS),
)
@settings(max_examples=150, deadline=None)
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, magic: str
) -> None:
    """Anything at all is read as sound or refused as InvalidInput."""
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(magic.encode() + body)
    try:
        assert np.isfinite(audio.read(path).samples).all()
    except audio.InvalidInput as refusal:
        assert "'audio' must" in str(refusal)


def counts(samples: Samples, vad: SileroVad) -> tuple[int, int]:
    heard = acoustics.analyse(samples, vad, 0.25)
    assert heard is not None
    return len(heard.silences), len(heard.nuclei_s)


def every_measure(heard: acoustics.Acoustics | None) -> dict[str, float]:
    """All temporal measures, 0 where there is none, and the number of filled pauses."""
    assert heard is not None
    found = asdict(measure(heard.segments, heard.silences, heard.nuclei_s))
    return {name: value or 0.0 for name, value in found.items()} | {"fillers": len(heard.fillers)}


@pytest.mark.parametrize("gain_db", [-20.0, -10.0, 10.0, 20.0])
def test_the_gain_changes_nothing(recording: Recording, vad: SileroVad, gain_db: float) -> None:
    """From 20 dB softer to 20 dB louder (in floating point: nothing clips): the same measures."""
    voice = recording("two_cities.flac")
    louder = (voice * 10 ** (gain_db / 20)).astype(np.float32)
    here, there = (acoustics.analyse(samples, vad, 0.25) for samples in (voice, louder))
    assert every_measure(there) == pytest.approx(every_measure(here), rel=1e-6)


Pair = tuple[acoustics.Acoustics, acoustics.Acoustics]


@pytest.fixture
def at_rate(recording: Recording, vad: SileroVad, tmp_path: Path) -> Callable[[str, int], Pair]:
    """What is heard in a recording, and in one of another rate made of it."""

    def both(name: str, rate: int) -> Pair:
        voice = recording(name)
        other = made_audio.resample(voice, 16_000, rate)
        read = audio.read(made_audio.write_wav(tmp_path / "a.wav", other, rate)).samples
        here, there = (acoustics.analyse(samples, vad, 0.25) for samples in (voice, read))
        assert here is not None
        assert there is not None
        return here, there

    return both


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
@pytest.mark.parametrize("name", ["two_cities.flac", "austen-0870.wav", "phone_call.flac"])
def test_the_sampling_rate_changes_nothing(
    at_rate: Callable[[str, int], Pair], name: str, rate: int
) -> None:
    """From 16 to 48 kHz: the same pauses with edges to 30 ms, every measure to 1 %."""
    here, there = at_rate(name, rate)
    assert every_measure(there) == pytest.approx(every_measure(here), rel=0.01)
    for mine, theirs in zip(here.silences, there.silences, strict=True):
        assert theirs.start_s == pytest.approx(mine.start_s, abs=0.03)
        assert theirs.end_s == pytest.approx(mine.end_s, abs=0.03)


@pytest.mark.parametrize("rate", [8_000, 11_025])
@pytest.mark.parametrize("name", ["two_cities.flac", "austen-0870.wav", "phone_call.flac"])
def test_a_low_sampling_rate_costs_an_s(
    at_rate: Callable[[str, int], Pair], name: str, rate: int
) -> None:
    """Below 16 kHz: the same pauses, but that one may begin up to 0.2 s early, for want of an [s].

    Syllables to 1 %, other measures to 10 %.
    """
    here, there = at_rate(name, rate)
    assert len(there.nuclei_s) == pytest.approx(len(here.nuclei_s), rel=0.01)
    assert every_measure(there) == pytest.approx(every_measure(here), rel=0.1)
    for mine, theirs in zip(here.silences, there.silences, strict=True):
        assert mine.start_s - 0.2 <= theirs.start_s <= mine.start_s + 0.03
        assert theirs.end_s == pytest.approx(mine.end_s, abs=0.03)


@pytest.mark.parametrize("room_db", [-75.0, None], ids=["room", "zeros"])
@pytest.mark.parametrize("name", ["austen-0920.wav", "two_cities.flac", "phone_call.flac"])
def test_silence_at_the_ends_changes_nothing(
    recording: Recording, vad: SileroVad, name: str, room_db: float | None
) -> None:
    """Four seconds before and six after: the same pauses, moved, and the same syllables."""
    voice = recording(name)
    room = made_audio.silence(6) if room_db is None else made_audio.noise(6, room_db)
    plain = acoustics.analyse(voice, vad, 0.25)
    padded = acoustics.analyse(np.concatenate([room[:64_000], voice, room]), vad, 0.25)
    assert plain is not None
    assert padded is not None
    assert len(padded.nuclei_s) == pytest.approx(len(plain.nuclei_s), abs=1)
    assert len(padded.silences) == len(plain.silences)
    found, expected = every_measure(padded), every_measure(plain)
    for one, value in expected.items():  # a syllable of 25 at most
        assert found[one] == pytest.approx(value, rel=0.04, abs=1 if "run" in one else 0), one
    for mine, theirs in zip(padded.segments, plain.segments, strict=True):
        assert mine.start_s - 4 == pytest.approx(theirs.start_s, abs=0.05)
        assert mine.end_s - 4 == pytest.approx(theirs.end_s, abs=0.05)


def test_an_offset_changes_nothing(recording: Recording, vad: SileroVad) -> None:
    """A constant of half the range: the same pauses and syllables."""
    voice = recording("two_cities.flac")
    assert counts((voice + 0.5).astype(np.float32), vad) == counts(voice, vad)


@pytest.mark.parametrize(("over_db", "pauses", "syllables"), [(12, 1, 0.03), (30, 4, 0.15)])
def test_clipping_costs_little(
    recording: Recording, vad: SileroVad, over_db: float, pauses: int, syllables: float
) -> None:
    """12 dB too loud, 4 % of the samples cut: nearly the same. 30 dB, 38 %: still an answer."""
    voice = recording("two_cities.flac")
    gain = 10 ** (over_db / 20) / np.abs(voice).max()
    clipped = np.clip(voice * gain, -1, 1).astype(np.float32)
    clean, cut = counts(voice, vad), counts(clipped, vad)
    assert abs(cut[0] - clean[0]) <= pauses
    assert cut[1] == pytest.approx(clean[1], rel=syllables)
