"""Files that are wrong somewhere: heard all the same, or refused in clear words."""

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import audio
import av
import made_audio
import numpy as np
import pytest
from conftest import Samples
from errors import InvalidInput

Recording = Callable[[str], Samples]


def pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def wav(
    data: bytes, *, form: int = 1, channels: int = 1, bits: int = 16, size: int | None = None
) -> bytes:
    """A WAV at 16 kHz with this header. size: of the data chunk, where it is to be wrong."""
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", form, channels, 16_000, 16_000 * frame, frame & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def read(folder: Path, content: bytes) -> Samples:
    path = folder / "voice.wav"
    path.write_bytes(content)
    return audio.read(path).samples


@pytest.mark.parametrize(
    "size",
    [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF, 64_000 + 44, 64_640],
)
def test_a_wav_of_a_wrong_size_is_read(tmp_path: Path, size: int) -> None:
    """2 s, as programs write them that write into a pipe, or that count the header too."""
    assert len(read(tmp_path, wav(pcm(made_audio.noise(2)), size=size))) == 32_000


@pytest.mark.parametrize("missing", [2_000, 32_000])
def test_a_wav_that_is_cut_short_is_refused(tmp_path: Path, missing: int) -> None:
    """3 % of 2 s, and half of it."""
    with pytest.raises(InvalidInput, match="cut short"):
        read(tmp_path, wav(pcm(made_audio.noise(2))[:-missing], size=64_000))


@pytest.mark.parametrize(("form", "bits"), [(1, 0), (0, 16), (0xFFFE, 16), (0x1FF, 16)])
def test_a_wav_of_an_unknown_coding_is_refused(tmp_path: Path, form: int, bits: int) -> None:
    """Formats that no decoder is known for."""
    with pytest.raises(InvalidInput, match="'audio' must have a known codec"):
        read(tmp_path, wav(pcm(made_audio.noise(1)), form=form, bits=bits))


def test_a_wav_of_impossible_bits_is_read_or_refused(tmp_path: Path) -> None:
    """A frame of 65,535 bytes in one channel: more bits to a sample than the header can say."""
    content = bytearray(wav(pcm(made_audio.noise(2))))
    content[32:34] = b"\xff\xff"
    content[34:36] = b"\x11\0"
    with suppress(InvalidInput):
        assert len(read(tmp_path, bytes(content))) > 0


def test_a_webm_of_an_unknown_coding_is_refused(tmp_path: Path, recording: Recording) -> None:
    """A container that is known around a codec that is not."""
    whole = made_audio.encode(recording("mary.wav"), "webm", "libopus", 48_000)
    with pytest.raises(InvalidInput, match="'audio' must have a known codec"):
        read(tmp_path, whole.replace(b"A_OPUS", b"A_OPUZ"))


def test_a_big_endian_wav_is_refused(tmp_path: Path) -> None:
    """RIFX: FFmpeg reads its header, but takes the bytes of its samples in the wrong order."""
    with pytest.raises(InvalidInput, match="got another kind"):
        read(tmp_path, b"RIFX" + wav(pcm(made_audio.noise(1)))[4:])


def test_a_rate_of_no_recorder_is_refused(tmp_path: Path) -> None:
    """192 kHz is heard; half a gigahertz, a broken header, would take a gigabyte to resample."""
    content = wav(pcm(made_audio.noise(1)))
    head, tail = content[:24], content[28:]
    heard = read(tmp_path, head + struct.pack("<I", 192_000) + tail)
    assert len(heard) == pytest.approx(16_000 / 12, abs=2)
    with pytest.raises(InvalidInput, match="at most 768000 samples/s, got 553664128"):
        read(tmp_path, head + struct.pack("<I", 553_664_128) + tail)


@pytest.mark.parametrize("count", [7, 9, 16, 32, 64, 100])
@pytest.mark.parametrize("kind", ["u8", "s16", "f32"])
def test_any_number_of_channels_is_mixed(
    tmp_path: Path, recording: Recording, count: int, kind: str
) -> None:
    """Whether or not FFmpeg knows where so many loudspeakers stand."""
    voice = recording("mary.wav") * 0.5 / np.abs(recording("mary.wav")).max()
    channels = np.repeat(voice[:, None], count, axis=1)
    data, form, bits = {
        "u8": ((channels * 127 + 128).round().astype("u1").tobytes(), 1, 8),
        "s16": (pcm(channels), 1, 16),
        "f32": (channels.astype("<f4").tobytes(), 3, 32),
    }[kind]
    found = read(tmp_path, wav(data, form=form, channels=count, bits=bits))
    assert len(found) == len(voice)
    assert np.corrcoef(found, voice)[0, 1] > 0.99


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("channels", [1, 2])
def test_damaged_floats_are_left_out(
    tmp_path: Path, recording: Recording, value: float, channels: int
) -> None:
    """A sample in a thousand is no number, or none that a microphone gives: the voice remains."""
    voice = recording("mary.wav").copy()
    expected = voice.copy()
    voice[::1000], expected[::1000] = value, 0
    data = np.repeat(voice[:, None], channels, axis=1).astype("<f4").tobytes()
    found = read(tmp_path, wav(data, form=3, channels=channels, bits=32))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac")])
def test_the_rate_may_change_on_the_way(
    tmp_path: Path, recording: Recording, container: str, codec: str
) -> None:
    """Two recordings joined end to end, at 44.1 and at 22.05 kHz: both are heard."""
    voice = recording("austen-0880.wav")
    parts = [made_audio.encode(voice, container, codec, rate) for rate in (44_100, 22_050)]
    found = read(tmp_path, b"".join(parts))
    assert len(found) == pytest.approx(2 * len(voice), abs=4_000)
    half = len(found) // 2
    assert np.std(found[half:]) == pytest.approx(np.std(found[:half]), rel=0.1)


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("adts", "aac")])
def test_a_tag_in_front_is_skipped(
    tmp_path: Path, recording: Recording, container: str, codec: str
) -> None:
    """ID3 is MP3's own, but FLAC and AAC files have it too."""
    voice = recording("mary.wav")
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    found = read(tmp_path, tag + made_audio.encode(voice, container, codec, 44_100))
    assert len(found) == pytest.approx(len(voice), abs=3_000)


def opus_without(samples: Samples, container: str, left_out: tuple[float, float]) -> bytes:
    """Opus whose packets between two times are not there; the others keep their time stamps."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream: Any = output.add_stream("libopus", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = 16_000
        resampler = av.AudioResampler("flt", "mono", 48_000, frame_size=960)
        pieces = [*resampler.resample(frame), *resampler.resample(None)]
        packets = [packet for piece in pieces for packet in stream.encode(piece)]
        for index, packet in enumerate(packets):
            if not left_out[0] <= index * 0.02 < left_out[1]:
                packet.time_base = Fraction(1, 1000)
                packet.pts = packet.dts = index * 20
                output.mux(packet)
    return target.getvalue()


@pytest.mark.parametrize("container", ["webm", "ogg"])
def test_packets_that_were_left_out_are_silence(
    tmp_path: Path, recording: Recording, container: str
) -> None:
    """A pause of 4 s that the sender did not send (DTX) is as long as one that it did."""
    voice = recording("austen-0880.wav")
    sound = np.concatenate([voice, made_audio.silence(4), voice])
    start_s = len(voice) / 16_000
    found = read(tmp_path, opus_without(sound, container, (start_s + 0.2, start_s + 3.8)))
    assert len(found) == pytest.approx(len(sound), abs=3_000)
    assert np.std(found[-len(voice) :]) == pytest.approx(np.std(voice), rel=0.1)
    quiet = found[int((start_s + 0.5) * 16_000) : int((start_s + 3.5) * 16_000)]
    assert np.abs(quiet).max() < 1e-3


def test_a_time_stamp_of_next_year_is_too_long(tmp_path: Path, recording: Recording) -> None:
    """A gap is counted as the silence that it is: no more than ten minutes of it."""
    voice = recording("mary.wav")
    sound = np.concatenate([voice, made_audio.silence(3), voice])
    gap = (len(voice) / 16_000 + 0.2, len(voice) / 16_000 + 2.8)
    assert len(read(tmp_path, opus_without(sound, "webm", gap))) < 8 * 16_000
    target = tmp_path / "late.webm"
    whole = opus_without(np.concatenate([voice, made_audio.silence(615), voice]), "webm", (2, 612))
    target.write_bytes(whole)
    with pytest.raises(InvalidInput, match="at most 10 minutes"):
        audio.read(target)
