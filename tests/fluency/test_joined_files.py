"""Files that other programs play: joined, tagged, with odd headers. All of the sound is read."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audio
import av
import made_audio
import numpy as np
import pytest
from conftest import Samples
from test_odd_files import pcm, read, wav

Recording = Callable[[str], Samples]
ID3 = b"ID3\x03\0\0\0\0\0\x14" + bytes(20)
LENGTH_S = 3.0


@pytest.fixture(scope="module")
def voice(recording: Recording) -> Samples:
    return recording("austen-0880.wav")[: round(LENGTH_S * 16_000)]


@pytest.mark.parametrize(
    ("container", "codec", "count"),
    [
        ("wav", "pcm_s16le", 3),
        ("wav", "pcm_mulaw", 2),
        ("aiff", "pcm_s16be", 2),
        ("ipod", "aac", 2),
        ("mp3", "libmp3lame", 2),
    ],
)
def test_every_part_of_a_joined_file_is_heard(
    tmp_path: Path, voice: Samples, container: str, codec: str, count: int
) -> None:
    """Blobs of a recorder that a page put one behind another."""
    found = read(tmp_path, made_audio.encode(voice, container, codec, 44_100) * count)
    assert len(found) == pytest.approx(count * len(voice), abs=count * 3_000)
    last = found[-len(voice) :]
    assert np.std(last) == pytest.approx(np.std(voice), rel=0.15)


def test_joined_fragments_are_heard(tmp_path: Path, voice: Samples) -> None:
    """Two MP4s in fragments, as MediaRecorder writes them."""
    one = made_audio.encode(voice, "mp4", "aac", 44_100, movflags="frag_keyframe+empty_moov")
    assert len(read(tmp_path, one + one)) == pytest.approx(2 * len(voice), abs=6_000)


def test_samples_behind_those_declared_are_heard(tmp_path: Path, voice: Samples) -> None:
    """A WAV to which samples were appended without a word in its header."""
    assert len(read(tmp_path, wav(pcm(voice), size=32_000))) == len(voice)


def test_what_follows_the_samples_is_no_sound(tmp_path: Path, voice: Samples) -> None:
    """Chunks with a title and markers behind the samples are left out."""
    behind = b"LIST" + struct.pack("<I", 4000) + b"INFO" + bytes(3996)
    assert len(read(tmp_path, wav(pcm(voice)) + behind)) == len(voice)


@pytest.mark.parametrize(
    ("bits", "valid", "layout"),
    [
        (24, 24, (4, 1)),
        (32, 24, (4, 0xFFFE)),
        (24, 24, (4, 0xFFFE)),
        (20, 20, (3, 1)),
        (12, 12, (2, 1)),
    ],
)
def test_fewer_bits_than_the_container_has(
    tmp_path: Path, voice: Samples, bits: int, valid: int, layout: tuple[int, int]
) -> None:
    """24 bits in 32 as WASAPI gives them, 20 in 24, 12 in 16: the same voice, not noise.

    layout: bytes of a sample, format code.
    """
    block, form = layout
    top = np.round(voice.astype(np.float64) / np.abs(voice).max() * (2 ** (valid - 1) - 1))
    numbers = (top.astype(np.int64) << (8 * block - valid)).astype("<i4").view("u1").reshape(-1, 4)
    data = numbers[:, :block].tobytes()
    head = struct.pack("<HHIIHH", form, 1, 16_000, 16_000 * block, block, bits)
    if form == 0xFFFE:
        guid = b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
        head += struct.pack("<HHI", 22, valid, 4) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data)) + data
    found = read(tmp_path, b"RIFF" + struct.pack("<I", len(body)) + body)
    assert len(found) == len(voice)
    assert np.corrcoef(found, voice)[0, 1] > 0.999


def odd_files(voice: Samples) -> dict[str, bytes]:
    """Files of one recording that FFmpeg refuses or cuts."""
    plain = wav(pcm(voice))
    fmt, data = plain[12:36], plain[36:]
    ima = made_audio.encode(voice, "wav", "adpcm_ima_wav", 16_000)
    fact = ima.index(b"fact") + 8
    count = struct.unpack("<I", ima[fact : fact + 4])[0]
    mp3 = made_audio.encode(voice, "mp3", "libmp3lame", 44_100)
    mov = made_audio.encode(voice, "mov", "aac", 44_100)
    adts = made_audio.encode(voice, "adts", "aac", 44_100)
    flac = made_audio.encode(voice, "flac", "flac", 16_000)
    no_sizes = b"ds64" + struct.pack("<I", 28) + bytes(28)
    return {
        "100 MB": wav(pcm(voice), size=100_000_000),
        "doubled fact": ima[:fact] + struct.pack("<I", 2 * count) + ima[fact + 4 :],
        "LIST without its pad byte": b"RIFF" + plain[4:12] + fmt + b"LIST\x05\0\0\0abcde" + data,
        "RF64 from a pipe": b"RF64\xff\xff\xff\xffWAVE" + no_sizes + fmt + b"data" + b"\xff" * 4
        + data[8:],
        "BW64": b"BW64" + plain[4:],
        "WAV behind a tag": ID3 + plain,
        "AAC behind two tags": ID3 + ID3 + adts,
        "FLAC behind two tags": ID3 + ID3 + flac,
        "MP3 from the middle of a frame": mp3[1000:],
        "MOV without ftyp": mov[20:],
        "CAF": made_audio.encode(voice, "caf", "alac", 44_100),
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        "100 MB", "doubled fact", "LIST without its pad byte", "RF64 from a pipe", "BW64",
        "WAV behind a tag", "AAC behind two tags", "FLAC behind two tags",
        "MP3 from the middle of a frame", "MOV without ftyp", "CAF",
    ],
)  # fmt: skip
def test_what_others_play_is_read(tmp_path: Path, voice: Samples, kind: str) -> None:
    """The whole recording, as long and as loud as it is."""
    found = read(tmp_path, odd_files(voice)[kind])
    assert len(found) == pytest.approx(len(voice), abs=3_000)
    assert np.std(found) == pytest.approx(np.std(voice), rel=0.15)


def test_amr_is_read(recording: Recording) -> None:
    """What phones send: 4.9 s."""
    assert len(recording("voice.amr")) == pytest.approx(4.9 * 16_000, abs=1_000)


def test_an_encoders_padding_is_not_too_long(
    tmp_path: Path, voice: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of exactly the longest time, which AAC fills up to whole frames."""
    monkeypatch.setattr(audio, "MAX_DURATION_S", 2)
    two = voice[:32_000]
    assert len(read(tmp_path, made_audio.encode(two, "adts", "aac", 44_100))) == 32_000
    with pytest.raises(audio.InvalidInput, match="must last at most"):
        read(tmp_path, made_audio.encode(voice, "adts", "aac", 44_100))


def test_the_second_track_is_heard_where_the_first_cannot_be(
    tmp_path: Path, voice: Samples
) -> None:
    """A first track in a codec that is not known."""
    path = tmp_path / "two.m4a"
    with av.open(str(path), "w", format="ipod") as output:
        streams: list[Any] = [output.add_stream("alac", rate=16_000) for _ in range(2)]
        for stream in streams:
            stream.layout = "mono"
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(voice[None], format="fltp", layout="mono")
            frame.rate = 16_000
            sizes = {"frame_size": stream.frame_size or 4096}
            resampler = av.AudioResampler(stream.format, "mono", 16_000, **sizes)
            for piece in (*resampler.resample(frame), *resampler.resample(None)):
                output.mux(stream.encode(piece))
            output.mux(stream.encode(None))
    content = path.read_bytes()
    at = content.index(b"alac", content.index(b"stsd"))
    found = read(tmp_path, content[:at] + b"xxxx" + content[at + 4 :])
    assert len(found) == pytest.approx(len(voice), abs=1_000)
    assert np.std(found) == pytest.approx(np.std(voice), rel=0.05)
