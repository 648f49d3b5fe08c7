"""Whisper itself: windows of several requests to tokens, one batch at a time.

A window whose text repeats itself or is improbable is decoded again at rising temperatures
(openai/whisper, `transcribe.py`). Each window has its own limit, language and random generator, so
its result is the same as alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Final

import beam_search
import decoding
import heap
import hesitations
import int8
import numpy as np
import torch
import whisper
import word_times
from batching import Batcher
from decoding import Decoded
from errors import InvalidInput
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer
from weights import Choice
from whisper import Pair, Whisper

BEAMS: Final = 5  # openai/whisper's default on the command line, and faster-whisper's
_MAX_TOKENS: Final = 220  # half of Whisper's 448, as openai/whisper: the other half is for a prompt
_TOKENS_PER_S: Final = 16  # more than the fastest speech in the most verbose script
_MULTILINGUAL: Final = 51_865  # ids of a model for many languages, at least
_WINDOWS_GPU: Final = 16
_WINDOWS_CPU: Final = 4
# Codes of ISO 639-1 that Whisper knows under another one (openai/whisper, tokenizer.py), withdrawn
# codes, and ISO 639-3 codes that browsers send.
_SAME_LANGUAGE: Final = {
    "nb": "no", "jv": "jw", "iw": "he", "in": "id", "ji": "yi", "mo": "ro", "sh": "sr",
    "fil": "tl", "cmn": "zh", "arb": "ar", "pes": "fa", "prs": "fa", "swh": "sw",
}  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """Some windows of one recording.

    mel: (k, bands, 3000) of `WhisperFeatureExtractor`; durations_s: k lengths; language:
    ISO 639-1, or None to detect it in these windows; syllables: how many the signal of each has, if
    that is known; check: called between the decoder's steps where no other request shares the
    batch; an exception from it ends the work.
    """

    mel: Tensor
    durations_s: list[float]
    language: str | None
    syllables: list[int] | None = None
    check: Callable[[], None] = lambda: None

    def part(self, first: int, end: int | None = None) -> "Windows":
        """The windows from `first` on, as far as `end`."""
        counts = self.syllables and self.syllables[first:end]
        return replace(
            self,
            mel=self.mel[first:end],
            durations_s=self.durations_s[first:end],
            syllables=counts,
        )


@dataclass(frozen=True)
class Heard:
    """The result for each of k windows.

    probability: of the language, 1 if it was given. attention: of the decoder, (1 + tokens, frames
    of 20 ms) for each window, None for one without tokens.
    """

    language: str
    probability: float
    decoded: list[Decoded]
    attention: list[NDArray[np.float32] | None]


class Recogniser:
    """A loaded Whisper. Any thread may call `hear`."""

    def __init__(self, choice: Choice) -> None:
        """Load with `from_pretrained`: a hub id or a folder."""
        self.tokenizer = AutoTokenizer.from_pretrained(choice.source)
        self.model: Whisper = whisper.load(choice.source, choice.dtype).to(choice.device)
        self._is_int8 = choice.is_int8
        if self._is_int8:
            int8.convert(self.model)
        config = self.model.generation_config
        _complete(config, self.tokenizer, self.model.config.vocab_size)
        self.languages: dict[str, int] = {
            name.strip("<|>"): token
            for name, token in (getattr(config, "lang_to_id", None) or {}).items()
        }
        # A GPU is hardly slower with sixteen windows than with one; a CPU gains nothing by more.
        self.batch = _WINDOWS_GPU if choice.device.type == "cuda" else _WINDOWS_CPU
        self._batcher = Batcher(self.together, lambda job: len(job.durations_s), self.batch)

    def language_of(self, tag: str) -> str:
        """The model's own code for a language tag: "en-US", "EN", "zh_CN", "nb" or "iw".

        Raises InvalidInput when the model does not know the language.
        """
        parts = tag.strip().lower().replace("_", "-").split("-")
        language = _SAME_LANGUAGE.get(parts[0], parts[0])
        if language == "zh" and "hk" in parts and "yue" in self.languages:
            language = "yue"
        if language == "yue" and "yue" not in self.languages:  # before large-v3
            language = "zh"
        if self.languages and language not in self.languages:
            raise InvalidInput(
                "Cannot transcribe: 'language' must be 'auto' or a code such as 'en' or 'ja', "
                f"got {tag!r}"
            )
        return language

    def hear(self, windows: Windows) -> Heard:
        """Decode at most `batch` windows, in one batch with those of other threads.

        Where memory is too small for all of them, in two halves; the language is that of the first.
        Raises torch.OutOfMemoryError when it is too small for one.
        """
        try:
            return self._batcher.submit(windows)
        except torch.OutOfMemoryError:
            if len(windows.durations_s) == 1:
                raise
        middle = len(windows.durations_s) // 2
        first = self.hear(windows.part(0, middle))
        rest = self.hear(replace(windows.part(middle), language=first.language))
        return replace(
            first,
            decoded=[*first.decoded, *rest.decoded],
            attention=[*first.attention, *rest.attention],
        )

    @torch.inference_mode()
    def together(self, jobs: list[Windows], *, max_tokens: int = _MAX_TOKENS) -> list[Heard]:
        """Several jobs in one batch."""
        encoded = self.encode(torch.cat([job.mel for job in jobs]))
        edges = [0, *accumulate(len(job.durations_s) for job in jobs)]
        spoken = [
            self.detect_language(encoded[first:last], job.durations_s)
            if job.language is None
            else (job.language, 1.0)
            for job, (first, last) in zip(jobs, pairwise(edges), strict=True)
        ]
        durations_s = [duration for job in jobs for duration in job.durations_s]
        languages = [
            language
            for job, (language, _) in zip(jobs, spoken, strict=True)
            for _ in job.durations_s
        ]
        prompts = [self.prompt(language) for language in languages]
        limits = [min(max_tokens, 16 + round(_TOKENS_PER_S * length)) for length in durations_s]
        syllables = [count for job in jobs for count in job.syllables or [0] * len(job.durations_s)]
        # One request's end must not end the others of its batch.
        check = jobs[0].check if len(jobs) == 1 else lambda: None
        decoded: list[Decoded] = []
        attention: list[NDArray[np.float32] | None] = []
        # In int8 one after the other: they would share a scale, and need their memory together.
        step = 1 if self._is_int8 else len(prompts)
        for first in range(0, len(prompts), step):
            some = slice(first, first + step)
            cross = list(self.model.decoder.cross(encoded[some]))
            words = self._decode(cross, prompts[some], limits[some], syllables[some], check)
            self._trim()
            words = hesitations.restore(
                self.model,
                self.tokenizer,
                cross,
                list(zip(languages[some], prompts[some], strict=True)),
                words,
            )
            self._trim()
            attention += self._attention(cross, prompts[some], words, durations_s[some])
            decoded += words
            del cross  # before the next ones are made
        return [
            Heard(language, probability, decoded[first:last], attention[first:last])
            for (language, probability), (first, last) in zip(spoken, pairwise(edges), strict=True)
        ]

    def encode(self, mel: Tensor) -> Tensor:
        """(k, bands, 3000) to encoder states (k, 1500, width)."""
        here = mel.to(self.model.device, self.model.dtype)
        self._trim()
        # On a processor one by one: that takes as long, and a quarter of the memory.
        parts = torch.split(here, 1 if here.device.type == "cpu" else len(here))
        encoded = torch.cat([self.model.encoder(part) for part in parts])
        self._trim()
        return encoded

    def _trim(self) -> None:
        if self.model.device.type == "cpu":
            heap.trim()

    def detect_language(self, encoded: Tensor, durations_s: list[float]) -> tuple[str, float]:
        """The most likely language of the windows, weighted by their lengths."""
        if not self.languages:
            return "en", 1.0
        start = torch.full(
            (len(durations_s), 1),
            self.model.generation_config.decoder_start_token_id,
            device=encoded.device,
        )
        hidden, _ = self.model.decoder(start, self.model.decoder.cross(encoded))
        logits = self.model.proj_out(hidden[:, -1]).float()
        logits = logits[:, list(self.languages.values())]
        weight = torch.tensor(durations_s, device=encoded.device)
        chance = (logits.softmax(-1) * (weight / weight.sum())[:, None]).sum(0)
        best = int(chance.argmax())
        return list(self.languages)[best], float(chance[best])

    def prompt(self, language: str) -> list[int]:
        """The prompt tokens: start, language, transcribe, no timestamps."""
        config = self.model.generation_config
        prompt = [config.decoder_start_token_id]
        if self.languages:
            prompt += [self.languages[language], config.task_to_id["transcribe"]]
        return [*prompt, config.no_timestamps_token_id]

    def _decode(
        self,
        cross: Sequence[Pair],
        prompts: list[list[int]],
        limits: list[int],
        syllables: list[int],
        check: Callable[[], None],
    ) -> list[Decoded]:
        def attempts(windows: list[int], decode: Callable[..., list[Decoded]]) -> list[Decoded]:
            if not windows:
                return []
            return decode(
                self.model,
                whisper.part_of(cross, windows),
                [prompts[window] for window in windows],
                [limits[window] for window in windows],
                syllables=[syllables[window] for window in windows],
                check=check,
            )

        results = attempts(list(range(len(prompts))), partial(beam_search.search, beams=BEAMS))
        short = [window for window, attempt in enumerate(results) if attempt.may_lack_words]
        for window, attempt in zip(short, attempts(short, decoding.decode), strict=True):
            if self._is_good(attempt) and len(attempt.tokens) > len(results[window].tokens):
                results[window] = attempt
        for temperature in decoding.TEMPERATURES:
            bad = [window for window, result in enumerate(results) if not self._is_good(result)]
            drawn = attempts(bad, partial(decoding.decode, temperature=temperature))
            for window, attempt in zip(bad, drawn, strict=True):
                # Of several bad attempts the most likely one without a loop is kept.
                if self._is_good(attempt) or _merit(attempt) > _merit(results[window]):
                    results[window] = attempt
        return results

    def _is_good(self, attempt: Decoded) -> bool:
        text = self.tokenizer.decode(attempt.tokens)
        repeats = decoding.compression_ratio(text) > decoding.MAX_COMPRESSION
        return (
            not attempt.looped
            and (not repeats or attempt.is_drill)
            and attempt.log_probability >= decoding.MIN_LOG_PROBABILITY
        )

    def _attention(
        self,
        cross: Sequence[Pair],
        prompts: list[list[int]],
        decoded: list[Decoded],
        durations_s: list[float],
    ) -> list[NDArray[np.float32] | None]:
        """The attention of each window, from the last token of the prompt on."""
        end = decoding.vocabulary(self.model).end
        said = [window for window, one in enumerate(decoded) if one.tokens]
        made: list[NDArray[np.float32] | None] = [None] * len(decoded)
        if not said:
            return made
        found = word_times.attention(
            self.model,
            whisper.part_of(cross, said),
            [[*prompts[window], *decoded[window].tokens, end] for window in said],
            [
                min(cross[0][0].shape[2], max(2, round(durations_s[window] / word_times.FRAME_S)))
                for window in said
            ],
            end,
        )
        for window, weights in zip(said, found, strict=True):
            # A token's row is the attention while the next token was generated.
            made[window] = weights[len(prompts[window]) - 1 : -1]
        return made


def _complete(config: Any, tokenizer: Any, vocabulary_size: int) -> None:
    """Add what the generation configuration lacks, as that of a model that was trained further may,
    or when there is none: the tokenizer has the ids."""
    ids = tokenizer.get_added_vocab()
    for name, token in (
        ("no_timestamps_token_id", "<|notimestamps|>"),
        ("prev_sot_token_id", "<|startofprev|>"),
    ):
        if getattr(config, name, None) is None:
            setattr(config, name, ids.get(token))
    # The tokenizer of an English-only model has the languages too (openai/whisper, model.py).
    if vocabulary_size >= _MULTILINGUAL and not getattr(config, "lang_to_id", None):
        config.lang_to_id = {t: i for t, i in ids.items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", t)}
        config.task_to_id = {"transcribe": ids["<|transcribe|>"]}


def _merit(attempt: Decoded) -> tuple[bool, float]:
    return (not attempt.looped, attempt.log_probability)
