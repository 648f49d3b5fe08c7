"""Speech to words with Whisper, through transformers.

The recording is cut at pauses into windows of at most 28 s, so nothing depends
on where a fixed 30 s grid would fall and the windows go through in batches. A
window whose text repeats itself or is improbable is decoded again at rising
temperatures (openai/whisper, `transcribe.py`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import decoding
import numpy as np
import torch
import word_times
from decoding import Decoded
from errors import InvalidInput
from numpy.typing import NDArray
from pauses import Interval
from torch import Tensor
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration
from weights import Choice

SAMPLE_RATE_HZ: Final = 16_000
WINDOW_S: Final = 28.0  # of Whisper's 30, to leave room for the margins
MARGIN_S: Final = 0.3
# Written without spaces: a word cannot be told from its neighbour by its spelling.
UNSPACED: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_MAX_TOKENS: Final = 220  # half of Whisper's 448, as openai/whisper: the other half is for a prompt
_TOKENS_PER_S: Final = 16  # more than the fastest speech in the most verbose script


@dataclass(frozen=True)
class Word:
    """text: with its punctuation; probability: in [0, 1], the product of its tokens'."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Transcript:
    """language: ISO 639-1, as Whisper names it; its probability is 1 if it was given."""

    words: list[Word]
    language: str
    language_probability: float
    warnings: list[str]

    @property
    def is_spaced(self) -> bool:
        """Whether the script parts its words."""
        return self.language not in UNSPACED

    @property
    def text(self) -> str:
        """The whole transcript on one line."""
        joint = " " if self.is_spaced else ""
        return joint.join(word.text for word in self.words)


def windows(segments: list[Interval], duration_s: float) -> list[Interval]:
    """Group speech segments into windows of at most 28 s, with some silence around each.

    A segment that is longer itself is cut into equal parts.
    """
    parts: list[Interval] = []
    for segment in segments:
        count = max(1, int(np.ceil(segment.duration_s / WINDOW_S)))
        edges = np.linspace(segment.start_s, segment.end_s, count + 1)
        parts += [Interval(float(a), float(b)) for a, b in pairwise(edges)]
    groups: list[Interval] = []
    for part in parts:
        if groups and part.end_s - groups[-1].start_s <= WINDOW_S:
            groups[-1] = Interval(groups[-1].start_s, part.end_s)
        else:
            groups.append(part)
    padded = []
    for index, group in enumerate(groups):
        before = groups[index - 1].end_s if index else 0.0
        after = groups[index + 1].start_s if index + 1 < len(groups) else duration_s
        padded.append(
            Interval(
                max(group.start_s - MARGIN_S, (before + group.start_s) / 2 if index else 0.0),
                min(
                    group.end_s + MARGIN_S,
                    (group.end_s + after) / 2 if after < duration_s else after,
                ),
            )
        )
    return padded


class Transcriber:
    """A loaded Whisper. Not for concurrent use."""

    def __init__(self, choice: Choice) -> None:
        """Load with `from_pretrained`: a hub id or a folder."""
        self.features = WhisperFeatureExtractor.from_pretrained(choice.source)
        self.tokenizer = AutoTokenizer.from_pretrained(choice.source)
        model: Any = WhisperForConditionalGeneration.from_pretrained(
            choice.source, dtype=choice.dtype
        )
        self.model = model.to(choice.device).eval()
        self.languages: dict[str, int] = {
            name.strip("<|>"): token
            for name, token in (getattr(model.generation_config, "lang_to_id", None) or {}).items()
        }
        self.batch = 16 if choice.device.type == "cuda" else 4

    def check_language(self, language: str) -> None:
        """Raise InvalidInput unless the model knows the ISO 639-1 code."""
        if self.languages and language not in self.languages:
            raise InvalidInput(
                "Cannot transcribe: 'language' must be 'auto' or a code such as 'en' or 'ja', "
                f"got {language!r}"
            )

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run encoder, decoder and alignment once, on a second of silence and four tokens."""
        span = Interval(0.0, 1.0)
        encoded = self._encode(np.zeros(SAMPLE_RATE_HZ, np.float32), [span])
        language, _ = self._detect_language(encoded, [span])
        prompt = self._prompt(language)
        decoded = decoding.decode(self.model, encoded, prompt, 4)
        self._words(encoded, prompt, decoded[0], span, language)

    @torch.inference_mode()
    def transcribe(
        self, samples: NDArray[np.float32], spans: list[Interval], language: str | None
    ) -> Transcript:
        """Words of the windows `spans`. samples: (n,) 16 kHz; language None: detect it."""
        words: list[Word] = []
        warnings: list[str] = []
        probability = 1.0
        for start in range(0, len(spans), self.batch):
            part = spans[start : start + self.batch]
            encoded = self._encode(samples, part)
            if language is None:  # by the first batch: up to two minutes on a CPU
                language, probability = self._detect_language(encoded, part)
            prompt = self._prompt(language)
            for index, (span, decoded) in enumerate(
                zip(part, self._decode(encoded, prompt, part), strict=True)
            ):
                if decoded.looped:
                    warnings.append(f"the transcript near {span.start_s:.0f} s repeated itself")
                state = encoded[index : index + 1]
                words += self._words(state, prompt, decoded, span, language)
        return Transcript(words, language or "en", probability, warnings)

    def _encode(self, samples: NDArray[np.float32], spans: list[Interval]) -> Tensor:
        cuts = [
            samples[int(s.start_s * SAMPLE_RATE_HZ) : int(s.end_s * SAMPLE_RATE_HZ)] for s in spans
        ]
        features = self.features(cuts, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        mel = features.input_features.to(self.model.device, self.model.dtype)
        encoded: Tensor = self.model.model.encoder(mel).last_hidden_state
        return encoded

    def _detect_language(self, encoded: Tensor, spans: list[Interval]) -> tuple[str, float]:
        """The likeliest language over the windows, each counting by its length."""
        if not self.languages:
            return "en", 1.0
        start = torch.full(
            (len(spans), 1),
            self.model.generation_config.decoder_start_token_id,
            device=encoded.device,
        )
        hidden = self.model.model.decoder(input_ids=start, encoder_hidden_states=encoded)
        logits = self.model.proj_out(hidden.last_hidden_state[:, -1]).float()
        logits = logits[:, list(self.languages.values())]
        weight = torch.tensor([span.duration_s for span in spans], device=encoded.device)
        chance = (logits.softmax(-1) * (weight / weight.sum())[:, None]).sum(0)
        best = int(chance.argmax())
        return list(self.languages)[best], float(chance[best])

    def _prompt(self, language: str) -> list[int]:
        config = self.model.generation_config
        prompt = [config.decoder_start_token_id]
        if self.languages:
            prompt += [self.languages[language], config.task_to_id["transcribe"]]
        return [*prompt, config.no_timestamps_token_id]

    def _decode(self, encoded: Tensor, prompt: list[int], spans: list[Interval]) -> list[Decoded]:
        longest = max(span.duration_s for span in spans)
        max_tokens = min(_MAX_TOKENS, 16 + round(_TOKENS_PER_S * longest))
        results: dict[int, Decoded] = {}
        open_windows = list(range(len(spans)))
        for temperature in decoding.TEMPERATURES:
            attempts = decoding.decode(
                self.model, encoded[open_windows], prompt, max_tokens, temperature=temperature
            )
            again = []
            for window, attempt in zip(open_windows, attempts, strict=True):
                known = results.get(window)
                # Of several bad attempts the likeliest one that does not loop is kept.
                if known is None or _merit(attempt) > _merit(known):
                    results[window] = attempt
                if not self._is_good(attempt):
                    again.append(window)
            open_windows = again
            if not open_windows:
                break
        return [results[window] for window in range(len(spans))]

    def _is_good(self, attempt: Decoded) -> bool:
        text = self.tokenizer.decode(attempt.tokens)
        return (
            not attempt.looped
            and decoding.compression_ratio(text) <= decoding.MAX_COMPRESSION
            and attempt.log_probability >= decoding.MIN_LOG_PROBABILITY
        )

    def _words(
        self, encoded: Tensor, prompt: list[int], decoded: Decoded, span: Interval, language: str
    ) -> list[Word]:
        """Words with times from the alignment heads."""
        if not decoded.tokens:
            return []
        end = decoding.vocabulary(self.model).end
        frames = min(encoded.shape[1], max(2, round(span.duration_s / word_times.FRAME_S)))
        tokens = [*prompt, *decoded.tokens, end]
        weights = word_times.attention(self.model, encoded, tokens, frames)
        # The row of a token is where the decoder looked when it wrote the next one.
        starts = word_times.token_times(weights[len(prompt) - 1 : -1])
        starts = np.append(
            starts[: len(decoded.tokens)], min(frames * word_times.FRAME_S, span.duration_s)
        )
        words = []
        for first, last, text in self._split(decoded.tokens, language):
            chance = float(np.prod(decoded.probabilities[first:last]))
            begin, finish = (span.start_s + float(starts[i]) for i in (first, last))
            words.append(Word(text, begin, max(finish, begin), chance))
        return words

    def _split(self, tokens: list[int], language: str) -> list[tuple[int, int, str]]:
        """Group tokens into words: (first token, one past the last, text)."""
        groups: list[tuple[int, int, str]] = []
        first = 0
        for last in range(1, len(tokens) + 1):
            text = self.tokenizer.decode(tokens[first:last])
            if "\ufffd" in text and last < len(tokens):  # in the middle of a character
                continue
            attaches = not any(character.isalnum() for character in text)
            new = language in UNSPACED or text.startswith(" ")
            if groups and (attaches or not new):
                groups[-1] = (groups[-1][0], last, groups[-1][2] + text.rstrip())
            elif text.strip():
                groups.append((first, last, text.strip()))
            first = last
        return groups


def _merit(attempt: Decoded) -> tuple[bool, float]:
    return (not attempt.looped, attempt.log_probability)
