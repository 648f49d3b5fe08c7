"""Beam search: transformers' texts, the right probabilities, and the end of a loop."""

from typing import Any

import audio
import beam_search
import decoding
import demo_weights
import pytest
import torch
import whisper
from conftest import GOLDEN
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation.configuration_utils import GenerationConfig

VOCABULARY, END, FORBIDDEN = 6, 5, 4
PROMPT = [0, 1]
ENGLISH = [50258, 50259, 50359, 50363]  # start, language, transcribe, no time stamps


@pytest.fixture(params=range(4))
def model(request: pytest.FixtureRequest) -> Any:
    """A network of four words, an end and a token that is never written, with random weights."""
    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_source_positions=10, num_mel_bins=4,
        bos_token_id=0, eos_token_id=END, pad_token_id=END, decoder_start_token_id=0,
    )  # fmt: skip
    generation = GenerationConfig(
        eos_token_id=END, suppress_tokens=[FORBIDDEN], begin_suppress_tokens=[END]
    )
    torch.manual_seed(request.param)
    made = whisper.Whisper(config, generation).eval()
    for weights in made.parameters():
        torch.nn.init.normal_(weights, std=0.7)
    return made


@pytest.fixture
def cross(model: Any) -> list[whisper.Pair]:
    """Of two windows."""
    with torch.inference_mode():
        return list(model.decoder.cross(model.encoder(torch.randn(2, 4, 20))))


@torch.inference_mode()
def test_the_texts_are_those_of_transformers() -> None:
    """Of five beams, for two recordings in one batch, one much longer than the other. The scores
    are those of the texts in one pass of the network."""
    source = str(demo_weights.prepare())
    features = WhisperFeatureExtractor.from_pretrained(source)
    sounds = [audio.read(GOLDEN / name).samples for name in ("austen-0930.wav", "bobby.wav")]
    mel = features(sounds, sampling_rate=16_000, return_tensors="pt").input_features
    stock: Any = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    theirs = stock.generate(
        mel, language="en", task="transcribe", num_beams=5, length_penalty=1.0, early_stopping=True
    )
    model = whisper.load(source, torch.float32)
    cross = list(model.decoder.cross(model.encoder(mel)))
    ours = beam_search.search(model, cross, [ENGLISH] * 2, [220] * 2, beams=5)
    for window, (one, other) in enumerate(zip(ours, theirs.tolist(), strict=True)):
        assert one.tokens == [token for token in other if token < ENGLISH[0] - 1]
        assert one.finished
        states, _ = model.decoder(
            torch.tensor([[*ENGLISH, *one.tokens]]), whisper.part_of(cross, [window])
        )
        logits = model.proj_out(states[0, len(ENGLISH) - 1 : -1])
        words = decoding.vocabulary(model)
        logits[:, words.suppress] = logits[0, words.suppress_at_first] = -torch.inf
        exact = logits.softmax(-1).gather(1, torch.tensor(one.tokens)[:, None]).flatten()
        assert one.probabilities == pytest.approx(exact.tolist(), abs=1e-3)


@torch.inference_mode()
def test_one_beam_is_greedy(model: Any, cross: Any) -> None:
    """But that it ends at the end."""
    limits = [12, 7]
    alone = decoding.decode(model, cross, [PROMPT] * 2, limits)
    for one, greedy in zip(
        beam_search.search(model, cross, [PROMPT] * 2, limits, beams=1), alone, strict=True
    ):
        assert one.tokens == greedy.tokens
        assert one.probabilities == pytest.approx(greedy.probabilities, abs=1e-5)
        assert (one.looped, one.full) == (greedy.looped, greedy.full and not greedy.looped)


def test_a_loop_ends_it() -> None:
    """The likeliest text repeats itself: it is cut and marked, as for greedy."""
    window = beam_search._Window(most_tokens=220, room=0)
    for step in range(100):
        if window.result:
            break
        window.take([-0.1 * step, -99.0], [0, 0], [step % 3, 7], END)
    assert window.result
    assert window.result.looped
    assert window.result.tokens == [0, 1, 2]


@pytest.mark.parametrize(("tokens", "lacks"), [(5, True), (7, False)])
def test_few_tokens_for_the_syllables(tokens: int, lacks: bool) -> None:
    """Ten syllables have 8 tokens, usually; without syllables nothing is known."""
    said = [1] * tokens
    assert decoding.Decoded(said, room=decoding.room_for(10)).may_lack_words is lacks
    assert not decoding.Decoded(said).may_lack_words
