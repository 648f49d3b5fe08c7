"""fluency's part of bench/gpu.py: the architecture of Whisper large-v3-turbo.

Set-up, time of 30 s of sound over its length (the real-time factor) and memory at 1, 8 and 16
windows together, against stock transformers' generate, what happens on a small card, float16
against float32. The sound is an array: no file is decoded, no pause is measured.
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "fluency"))

import decoding
import numpy as np
import recogniser
import torch
from asr import SAMPLE_RATE_HZ, Transcriber
from gpu_figures import DEVICE, IS_CUDA, Figures, build, card_of, peaks, start_peak, timed
from pauses import Interval
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from weights import Choice

SOUND_S = 30.0
TOKENS = 150
"""Of 30 s of speech; random weights do not know when to end."""

TINY_TOKENS = 9
REPEATS = 3
MOST_OFF = 0.02
"""Bound of the encoder's relative error in half precision."""

LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr")
SIZES = {
    "d_model": 1280, "encoder_layers": 32, "decoder_layers": 4, "encoder_attention_heads": 20,
    "decoder_attention_heads": 20, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120,
}  # fmt: skip
TINY = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip
VOCABULARY = 51866
END, START, LANGUAGE_0, TRANSCRIBE, NO_STAMPS = 50257, 50258, 50259, 50360, 50364


def turbo(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """The figures, the most valuable first."""
    tokens = TINY_TOKENS if is_tiny else TOKENS
    let_random_weights_talk(tokens)
    if IS_CUDA:
        torch.zeros(1, device=DEVICE)  # CUDA's start is no part of a set-up
    bench = _Bench(folder / "turbo", tokens, is_tiny=is_tiny)
    if not (figures.measure("written", bench.write) and figures.measure("setup", bench.set_up)):
        return
    for count in (1, 8):
        figures.measure("windows", partial(bench.windows, count), together=count)
        figures.measure("ours_to_stock", partial(bench.against_stock, count), together=count)
    figures.measure("half_to_float32", bench.half_to_float32)
    if IS_CUDA:  # cuDNN's attention may plan each new length: is that the first call's time?
        torch.backends.cuda.enable_cudnn_sdp(False)
        figures.measure("windows", partial(bench.windows, 3), together=3, attention="not cuDNN's")
        torch.backends.cuda.enable_cudnn_sdp(True)
    figures.measure("windows", partial(bench.windows, 16), together=16)
    with card_of(4):
        figures.measure("drill", partial(bench.windows, 16), card_gib=4, together=16)


def let_random_weights_talk(tokens: int) -> None:
    """As many tokens as speech has, once: random text would be tried again at every temperature."""
    decoding.TEMPERATURES = ()  # type: ignore[misc]
    decoding._LOOP_REPEATS.clear()
    recogniser._TOKENS_PER_S = (tokens - 16) / SOUND_S  # type: ignore[misc]


class _Bench:
    """The figures of one folder of weights."""

    def __init__(self, folder: Path, tokens: int, *, is_tiny: bool) -> None:
        """tokens: of a window."""
        self.folder = folder
        self.tokens = tokens
        self.sizes = TINY if is_tiny else SIZES
        self.transcriber: Any = None
        self.sound = np.random.default_rng(0).normal(0, 0.1, round(SOUND_S * SAMPLE_RATE_HZ))
        self.sound = self.sound.astype(np.float32)

    def write(self) -> dict[str, Any]:
        """A folder of random weights."""

        def save() -> None:
            build(self.make, torch.float16).save_pretrained(self.folder)

        seconds = timed(save)
        WhisperFeatureExtractor(feature_size=128).save_pretrained(self.folder)
        _tokenizer().save_pretrained(self.folder)
        return {"seconds": round(seconds, 2)}

    def make(self) -> WhisperForConditionalGeneration:
        config = WhisperConfig(
            **self.sizes, vocab_size=VOCABULARY, num_mel_bins=128, decoder_start_token_id=START,
            bos_token_id=END, eos_token_id=END, pad_token_id=END,
        )  # fmt: skip
        model = WhisperForConditionalGeneration(config)
        last = self.sizes["decoder_layers"] - 1
        model.generation_config = GenerationConfig(
            is_multilingual=True,
            decoder_start_token_id=START,
            bos_token_id=END,
            eos_token_id=END,
            pad_token_id=END,
            max_length=448,
            lang_to_id={f"<|{name}|>": LANGUAGE_0 + at for at, name in enumerate(LANGUAGES)},
            task_to_id={"transcribe": TRANSCRIBE, "translate": TRANSCRIBE - 1},
            no_timestamps_token_id=NO_STAMPS,
            suppress_tokens=list(range(END, VOCABULARY)),  # it never ends by itself
            begin_suppress_tokens=[220, END],
            alignment_heads=[[last - 1, 2], [last, 0], [last, 1], [last, 3]],
        )
        return model

    def set_up(self) -> dict[str, Any]:
        """By the package's own code, warm-up included."""

        def load() -> None:
            self.transcriber = self.load(torch.float16 if IS_CUDA else torch.float32)
            self.transcriber.warm_up()

        start_peak()
        return {"seconds": round(timed(load), 2), **peaks()}

    def load(self, dtype: torch.dtype) -> Transcriber:
        return Transcriber(Choice("turbo", str(self.folder), torch.device(DEVICE), dtype))

    def windows(self, count: int) -> dict[str, Any]:
        """Medians: sound to words with times, `count` windows of 30 s in one batch."""
        spans = [Interval(index * SOUND_S, (index + 1) * SOUND_S) for index in range(count)]
        sound = np.tile(self.sound, count)
        self.transcriber.recogniser.batch = count

        def transcribe() -> None:
            self.transcriber.transcribe(sound, spans, "en")

        first = timed(transcribe)
        start_peak()
        seconds = [timed(transcribe) for _ in range(REPEATS)]
        middle = statistics.median(seconds)
        return {
            "first_s": round(first, 3), "seconds": round(middle, 3),
            "real_time_factor": round(middle / SOUND_S / count, 5), "tokens_each": self.tokens,
            **peaks(),
        }  # fmt: skip

    def against_stock(self, count: int) -> dict[str, Any]:
        """Features to tokens: the package's pass, which also finds times, and generate."""
        model: Any = WhisperForConditionalGeneration.from_pretrained(
            self.folder, dtype=self.transcriber.recogniser.model.dtype
        ).to(DEVICE)
        job = self.transcriber._windows(
            np.tile(self.sound, count),
            [Interval(at * SOUND_S, (at + 1) * SOUND_S) for at in range(count)],
            "en",
        )
        features = job.mel.to(DEVICE, model.dtype)

        def stock() -> Any:
            return model.generate(
                features, language="en", task="transcribe", do_sample=False,
                num_beams=recogniser.BEAMS, min_new_tokens=self.tokens, max_new_tokens=self.tokens,
            )  # fmt: skip

        def ours() -> Any:
            return self.transcriber.recogniser.together([job])

        ours()
        tokens = stock().shape[-1]
        pairs = [(timed(ours), timed(stock)) for _ in range(REPEATS)]
        mine, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
        return {
            "ours_s": round(mine, 3), "stock_s": round(theirs, 3), "value": round(mine / theirs, 3),
            "stock_tokens": tokens,
        }  # fmt: skip

    def half_to_float32(self) -> dict[str, Any]:
        """Relative error of the encoder's states (root of the mean squares)."""
        recognised = self.transcriber.recogniser
        job = self.transcriber._windows(self.sound, [Interval(0.0, SOUND_S)], "en")
        with torch.inference_mode():
            half = recognised.encode(job.mel).float()
            recognised.model.float()
            exact = recognised.encode(job.mel)
            recognised.model.to(torch.float16 if IS_CUDA else torch.float32)
        off = float((half - exact).norm() / exact.norm())
        return {"value": round(off, 6), "is_within": off <= MOST_OFF}


def _tokenizer() -> WhisperTokenizer:
    """Whisper's byte letters, made-up words up to its vocabulary's size, its special tokens."""
    letters = sorted(ByteLevel.alphabet())
    words = [f"Ġw{index}" for index in range(len(letters), END)]
    vocabulary = {token: index for index, token in enumerate([*letters, *words])}
    special = {END: "<|endoftext|>", START: "<|startoftranscript|>", NO_STAMPS: "<|notimestamps|>"}
    special |= {LANGUAGE_0 + at: f"<|{name}|>" for at, name in enumerate(LANGUAGES)}
    special |= {TRANSCRIBE: "<|transcribe|>", TRANSCRIBE - 1: "<|translate|>"}
    names = {special.get(at, f"<|extra{at}|>"): at for at in range(END, NO_STAMPS + 1)}
    return WhisperTokenizer(vocab=vocabulary | names, merges=[])
