"""The whole package on real and on hopeless recordings."""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import audio
import made_audio
import numpy as np
import pytest
import reading
from errors import InvalidInput

# The original app's own check: a RIFF header that promises no samples.
EMPTY_WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
Measure = Callable[..., Any]


def errors(expected: str, said: str) -> int:
    return sum(a != b for a, b in reading.align(reading.words_of(expected), reading.words_of(said)))


def as_json(answer: Any) -> dict[str, Any]:
    """The answer as it goes over the wire; NaN and Infinity raise."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(answer), allow_nan=False, default=str))
    return plain


def test_the_transcripts_of_real_recordings_are_right(
    answer_of: Callable[[str], Any], transcripts: dict[str, str]
) -> None:
    """Word error rate of at most 10 % over the read passages, none in mary and bobby."""
    wrong = {
        name: errors(text.replace("mister", "mr"), answer_of(name).transcript)
        for name, text in transcripts.items()
    }
    words = {name: len(reading.words_of(text)) for name, text in transcripts.items()}
    assert wrong["mary.wav"] == wrong["bobby.wav"] == 0, wrong
    assert sum(wrong.values()) / sum(words.values()) <= 0.1, wrong


@pytest.fixture(scope="module")
def read_aloud(measure: Measure, golden: Path, transcripts: dict[str, str]) -> Any:
    """A line in a language to be detected, against a text with a word changed and one added."""
    text = transcripts["austen-0930.wav"].replace("amiable", "amenable") + " indeed"
    return measure(golden / "austen-0930.wav", reference_text=text)


def test_the_language_is_detected(read_aloud: Any) -> None:
    """Without a hint, English is heard as English, with a probability."""
    assert read_aloud.language == "en"
    assert read_aloud.language_confidence > 0.9


def test_a_header_without_samples_is_answered(measure: Measure, tmp_path: Path) -> None:
    """44 bytes of WAV header: no error, no speech, every rate null, no NaN."""
    path = tmp_path / "empty.wav"
    path.write_bytes(base64.b64decode(EMPTY_WAV))
    answer = as_json(measure(path))
    assert answer["speech_detected"] is False
    assert answer["duration_s"] == 0
    assert answer["syllable_count"] == answer["silent_pause_count"] == 0
    for name in ("fluency_score", "speech_rate", "articulation_rate", "words_per_minute"):
        assert answer[name] is None, name


@pytest.mark.parametrize(
    "samples",
    [
        made_audio.silence(2),
        made_audio.silence(0.01),
        made_audio.noise(3),
        made_audio.noise(3, level_db=-60),
        np.full(32_000, 0.5, np.float32),
        np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000).astype(np.float32) * 0.3,
        np.sign(np.sin(2 * np.pi * 50 * np.arange(48_000) / 16_000)).astype(np.float32),
        np.eye(1, 16_000, 8_000, dtype=np.float32)[0],
    ],
    ids=["silence", "10 ms", "noise", "hiss", "DC", "tone", "mains hum", "click"],
)
def test_sound_that_is_no_speech_has_no_measures(
    measure: Measure, tmp_path: Path, samples: Any
) -> None:
    """Silence, noise, a constant, a tone, a click: an answer that says so, with no NaN in it."""
    answer = as_json(measure(made_audio.write_wav(tmp_path / "a.wav", samples)))
    assert answer["speech_detected"] is False
    assert answer["transcript"] is None
    assert answer["fluency_score"] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b"hello, this is no sound\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"\xff\xfb\x90\x00" + bytes(range(256)) * 20,
        b"OggS" + bytes(500),
        b"fLaC" + bytes(500),
        b"\x1a\x45\xdf\xa3" + bytes(500),
        bytes(4) + b"ftypM4A " + bytes(500),
        b"#EXTM3U\nhttp://127.0.0.1/secret\n",
    ],
    ids=[*"0123456789", "playlist"],
)
def test_a_file_that_is_no_recording_is_refused(
    measure: Measure, tmp_path: Path, content: bytes
) -> None:
    """Whatever its name: InvalidInput, in words that name the input and not the path."""
    path = tmp_path / "voice.wav"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="'audio' must") as refusal:
        measure(path)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("name", ["austen-0880.wav", "phone_call.flac"])
def test_a_recording_that_is_cut_short_is_refused(
    measure: Measure, golden: Path, tmp_path: Path, name: str
) -> None:
    """Half a WAV or FLAC file promises more than it holds."""
    whole = (golden / name).read_bytes()
    path = tmp_path / "half"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match="cut short"):
        measure(path)


def test_more_than_ten_minutes_are_refused(measure: Measure, tmp_path: Path) -> None:
    """601 s of WAV by its header, and of a stream without a length by counting its samples."""
    long = made_audio.silence(601.5)
    with pytest.raises(InvalidInput, match="at most 10 minutes, got 10"):
        measure(made_audio.write_wav(tmp_path / "long.wav", long))
    stream = tmp_path / "long.ogg"
    stream.write_bytes(made_audio.encode(long, "adts", "aac"))
    with pytest.raises(InvalidInput, match="at most 10 minutes"):
        measure(stream)


def test_ten_minutes_are_answered(
    measure: Measure, golden: Path, tmp_path: Path, two_cities: Any
) -> None:
    """The longest recording that is taken: as many pauses and syllables as its parts have.

    With contours and picture; every measure is finite.
    """
    voice = audio.read(golden / "two_cities.flac").samples
    path = made_audio.write_wav(tmp_path / "a.wav", np.tile(voice, 14)[: 600 * 16_000])
    answer = measure(path, transcribe=False, contours=True, timeline=True)
    answer.timeline.unlink()
    as_json(answer)
    parts = 600 / two_cities.duration_s
    assert answer.duration_s == 600
    assert answer.syllable_count == pytest.approx(two_cities.syllable_count * parts, rel=0.05)
    assert answer.silent_pause_count == pytest.approx(
        (two_cities.silent_pause_count + 1) * parts, rel=0.1
    )
    assert len(answer.pitch_hz) == len(answer.intensity_db) == 30_001
    assert answer.total_time_s == pytest.approx(
        answer.phonation_time_s + answer.pause_time_s, abs=0.01
    )
    assert 0 < answer.fluency_score < 100


@pytest.mark.parametrize("sound", ["pad", "piano", "melody"])
def test_music_is_no_speech(measure: Measure, tmp_path: Path, sound: str) -> None:
    """Chords, a piano or a melody with vibrato, over drums: no speech, no measures."""
    path = made_audio.write_wav(tmp_path / "a.wav", made_audio.music(12, sound))
    answer = as_json(measure(path))
    assert answer["speech_detected"] is False
    assert answer["fluency_score"] is None


def test_speech_over_music_is_measured(measure: Measure, golden: Path, tmp_path: Path) -> None:
    """15 dB above a piano and drums: the syllables of the speech alone, to 10 %."""
    voice = audio.read(golden / "austen-0870.wav").samples
    music = made_audio.music(8, "piano")[: len(voice)]
    music *= np.std(voice) / np.std(music) * 10 ** (-15 / 20)
    alone = measure(golden / "austen-0870.wav", transcribe=False)
    mixed = measure(made_audio.write_wav(tmp_path / "a.wav", voice + music), transcribe=False)
    assert mixed.syllable_count == pytest.approx(alone.syllable_count, rel=0.1)
    assert mixed.silent_pause_count == alone.silent_pause_count


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"language": "klingon"}, "'language' must be 'auto' or a code"),
        ({"reference_text": " ... "}, "'reference_text' must hold words"),
        ({"reference_text": "👍🏽 __ ❤️"}, "'reference_text' must hold words"),
        ({"pause_threshold": float("nan")}, "'pause_threshold' must be finite"),
        ({"reference_text": "a " * 3001}, "at most 3000 words, got 3001"),
        ({"reference_text": "a", "transcribe": False}, "'transcribe' must be true"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(
    measure: Measure, golden: Path, inputs: dict[str, Any], complaint: str
) -> None:
    """Each with a message that says what must be."""
    with pytest.raises(InvalidInput, match=complaint):
        measure(golden / "mary.wav", **inputs)


def test_without_a_transcript_the_signal_is_still_measured(
    measure: Measure, golden: Path, two_cities: Any
) -> None:
    """transcribe=false: the same pauses, no words, unknown where words would tell.

    The syllables are those of the signal alone, so there may be some more or fewer.
    """
    full = two_cities
    quick = measure(golden / "two_cities.flac", transcribe=False)
    assert quick.transcript is None
    assert quick.repetition_count is None
    assert quick.syllable_count == pytest.approx(full.syllable_count, rel=0.1)
    assert quick.quality["syllables_by_words"] is None
    assert full.quality["syllables_by_words"] > 0.9
    assert [p["start"] for p in quick.pauses] == [p["start"] for p in full.pauses]
    assert {p["position"] for p in quick.pauses} == {"unknown"}
    assert {p["position"] for p in full.pauses} == {"within", "between"}


def test_a_reading_is_compared_with_its_text(read_aloud: Any) -> None:
    """One word more and one word changed in the text: an omission and a substitution."""
    report = read_aloud.reading
    assert report["omissions"] == ["indeed"]
    assert report["substitutions"] == ["amenable -> amiable"]
    assert report["insertions"] == []
    assert report["correct_words"] == 7


def test_contours_come_on_request(measure: Measure, golden: Path) -> None:
    """Pitch and intensity have 50 values a second and cover the recording."""
    plain = measure(golden / "mary.wav", transcribe=False)
    assert plain.pitch_hz is None
    answer = measure(golden / "mary.wav", transcribe=False, contours=True)
    assert len(answer.pitch_hz) == len(answer.intensity_db) == int(answer.duration_s * 50) + 1
    voiced = [value for value in answer.pitch_hz if value]
    assert 80 < np.median(voiced) < 130  # the hand-marked pitch targets are 85 to 120 Hz


def test_the_same_recording_gives_the_same_answer(
    measure: Measure, golden: Path, answer_of: Callable[[str], Any]
) -> None:
    """Nothing is left over from one prediction to the next."""
    first = as_json(answer_of("austen-0880.wav"))
    answer_of("mary.wav")
    assert as_json(measure(golden / "austen-0880.wav", language="en")) == first


def test_the_picture_shows_the_pauses(measure: Measure, golden: Path) -> None:
    """A PNG of five seconds a row, in the temp directory; pauses are shaded, speech is not.

    Each syllable has its dot.
    """
    import tempfile

    import timeline
    from PIL import Image, ImageColor

    answer = measure(golden / "two_cities.flac", transcribe=False, timeline=True)
    assert answer.timeline.parent == Path(tempfile.gettempdir())
    with Image.open(answer.timeline) as image:
        image.load()
    answer.timeline.unlink()
    assert image.format == "PNG"
    rows = math.ceil(answer.duration_s / timeline.ROW_S)
    assert image.size == (timeline.WIDTH_PX, timeline.HEAD_PX + rows * timeline.ROW_PX)

    def colour_at(time_s: float, y: int = 12) -> tuple[int, ...]:
        row, within = divmod(time_s, timeline.ROW_S)
        width = timeline.WIDTH_PX - 2 * timeline.MARGIN_PX
        x = timeline.MARGIN_PX + within / timeline.ROW_S * width
        at = image.getpixel((int(x), timeline.HEAD_PX + int(row) * timeline.ROW_PX + y))
        assert isinstance(at, tuple)
        return at

    shaded = {ImageColor.getrgb(name) for name in ("#fde4cf", "#f7b58d")}
    for pause in answer.pauses:
        assert colour_at((pause["start"] + pause["end"]) / 2) in shaded, pause
    assert colour_at(7.5) == (255, 255, 255)
    assert {colour_at(time, 5) for time in answer.syllables} == {ImageColor.getrgb("#c8385a")}


def test_a_picture_that_fails_leaves_no_file(
    measure: Measure, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while the PNG is written."""
    import tempfile

    from PIL import Image

    def full(self: Image.Image, file: Any, *_: Any, **__: Any) -> None:
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        measure(golden / "mary.wav", transcribe=False, timeline=True)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_of_a_cancelled_prediction_is_removed(
    runner: Any, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canceled while it was drawn."""
    import tempfile

    import pipeline

    class GoneError(Exception):
        pass

    def check() -> None:
        if list(tmp_path.iterdir()):
            raise GoneError

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = pipeline.Options(transcribe=False, timeline=True)
    with pytest.raises(GoneError):
        runner.pipeline.run(golden / "mary.wav", options, check)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_anything_can_be_drawn(measure: Measure, golden: Path) -> None:
    """Other scripts, and more words than a row has room for; a filler is green."""
    import dataclasses

    import timeline
    from outputs import Word
    from PIL import ImageColor

    answer = measure(golden / "mary.wav", transcribe=False)
    words = [Word(text="日本語", start=0.1, end=0.2, confidence=1.0, kind="filler")] * 60
    image = timeline.draw(np.zeros(30_000, np.float32), dataclasses.replace(answer, words=words))
    assert image.size[0] == timeline.WIDTH_PX
    under = image.crop((0, timeline.HEAD_PX + 97, timeline.WIDTH_PX, image.size[1]))
    colours = {colour for _, colour in under.getcolors(1_000_000) or []}
    assert ImageColor.getrgb("#2e7d4f") in colours
