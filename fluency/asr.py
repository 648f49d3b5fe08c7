"""Speech to words with Whisper in transformers.

The recording is cut at pauses into windows of at most 28 s, so that no fixed 30 s grid cuts a word
and the windows can share a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import decoding
import numpy as np
import spelling
import word_times
from decoding import Decoded
from numpy.typing import NDArray
from pauses import Interval
from recogniser import Recogniser, Windows
from transformers import WhisperFeatureExtractor
from weights import Choice

SAMPLE_RATE_HZ: Final = 16_000
WINDOW_S: Final = 28.0  # of Whisper's 30, to leave room for the margins
MARGIN_S: Final = 0.3
# A window whose words have less than this share of its syllables is read again in short ones:
# Whisper leaves out repetitions in a long window. Where the text repeats itself, a little less
# shows that one is missing.
THIN: Final = 0.6
THIN_DRILL: Final = 0.95
FEW_SYLLABLES: Final = 8  # too few to say that words are missing
SHORT_WINDOW_S: Final = 3.0
# Languages written without spaces: the text does not show where words end.
UNSPACED: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


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
        """Whether the script has spaces between words."""
        return self.language not in UNSPACED

    @property
    def text(self) -> str:
        """The whole transcript on one line."""
        joint = " " if self.is_spaced else ""
        return joint.join(word.text for word in self.words)


@dataclass(frozen=True)
class _Part:
    """What was heard in one window. syllables: of the signal."""

    span: Interval
    words: list[Word]
    looped: bool
    syllables: int

    def coverage(self, language: str) -> float | None:
        """Syllables of the words over those of the signal; None where they cannot be compared."""
        spoken = spelling.syllables((word.text for word in self.words), language)
        if spoken is None or self.syllables < FEW_SYLLABLES:
            return None
        return spoken / self.syllables

    @property
    def repeats_itself(self) -> bool:
        """Whether its text is much longer than what stands in it."""
        text = " ".join(word.text for word in self.words)
        return decoding.compression_ratio(text) > decoding.MAX_COMPRESSION


def windows(
    segments: list[Interval], duration_s: float, longest_s: float = WINDOW_S
) -> list[Interval]:
    """Group speech segments into windows of at most longest_s, with some silence around each.

    A segment of more than 28 s is cut into equal parts; a shorter one stays whole.
    """
    parts: list[Interval] = []
    for segment in segments:
        count = max(1, int(np.ceil(segment.duration_s / WINDOW_S)))
        edges = np.linspace(segment.start_s, segment.end_s, count + 1)
        parts += [Interval(float(a), float(b)) for a, b in pairwise(edges)]
    groups: list[Interval] = []
    for part in parts:
        if groups and part.end_s - groups[-1].start_s <= longest_s:
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


@dataclass(frozen=True)
class _Job:
    """What each of a recording's passes needs; see `transcribe`."""

    samples: NDArray[np.float32]
    check: Callable[[], None]
    nuclei_s: Sequence[float]


def _doubts(part: _Part, language: str) -> list[str]:
    """What is to be said of a window whose words do not fit its sound."""
    coverage = part.coverage(language)
    near = f"near {part.span.start_s:.0f} s"
    if coverage is not None and coverage < THIN:
        return [f"{near} the words have {100 * coverage:.0f} % of the syllables: some are missing"]
    return [f"the transcript {near} repeated itself"] if part.looped else []


class Transcriber:
    """Recordings to words. Any thread may call `transcribe`; the model is used by one at a time."""

    def __init__(self, choice: Choice) -> None:
        """Load with `from_pretrained`: a hub id or a folder."""
        self.recogniser = Recogniser(choice)
        self.features = WhisperFeatureExtractor.from_pretrained(choice.source)
        self.tokenizer = self.recogniser.tokenizer
        self.language_of = self.recogniser.language_of

    def warm_up(self) -> None:
        """Run encoder, decoder and alignment once, on a second of silence and four tokens."""
        silence = self._windows(np.zeros(SAMPLE_RATE_HZ, np.float32), [Interval(0.0, 1.0)], None)
        self.recogniser.together([silence], max_tokens=4)

    def transcribe(
        self,
        samples: NDArray[np.float32],
        spans: list[Interval],
        language: str | None,
        check: Callable[[], None] = lambda: None,
        *,
        nuclei_s: Sequence[float] = (),
        phrases: Sequence[Interval] = (),
    ) -> Transcript:
        """Words of the windows `spans`. samples: (n,) 16 kHz; language None: detect it.

        nuclei_s: the syllables of the signal, against which the words are checked; phrases: where a
        window that lost words may be cut. `check` is called before each batch of windows and, where
        no other request shares it, before each step of the decoder; an exception from it ends the
        work.
        """
        duration_s = len(samples) / SAMPLE_RATE_HZ
        job = _Job(samples, check, nuclei_s)
        parts, language, probability = self._parts(job, spans, language)
        words: list[Word] = []
        warnings: list[str] = []
        for part in parts:
            inside = [one for one in phrases if part.span.start_s <= one.start_s < part.span.end_s]
            finer = [
                Interval(max(one.start_s, part.span.start_s), min(one.end_s, part.span.end_s))
                for one in windows(inside, duration_s, SHORT_WINDOW_S)
            ]
            best = self._again(job, part, finer, language)
            warnings += _doubts(best, language)
            words += best.words
        return Transcript(words, language, probability, warnings)

    def _parts(
        self, job: "_Job", spans: list[Interval], language: str | None
    ) -> tuple[list[_Part], str, float]:
        """Each window's words, the language and its probability."""
        parts: list[_Part] = []
        probability = 1.0
        for start in range(0, len(spans), self.recogniser.batch):
            job.check()
            some = spans[start : start + self.recogniser.batch]
            made = self._windows(job.samples, some, language, job.nuclei_s, job.check)
            heard = self.recogniser.hear(made)
            if language is None:  # from the first batch: up to two minutes of speech on a CPU
                language, probability = heard.language, heard.probability
            for index, span in enumerate(some):
                decoded, attention = heard.decoded[index], heard.attention[index]
                words = [] if attention is None else self._words(decoded, attention, span, language)
                parts.append(_Part(span, words, decoded.looped, (made.syllables or [])[index]))
        return parts, language or "en", probability

    def _again(self, job: "_Job", part: _Part, finer: list[Interval], language: str) -> _Part:
        """The part, or what its shorter windows hold, where they hold more of its syllables."""
        before = part.coverage(language)
        least = THIN_DRILL if part.repeats_itself else THIN
        if before is None or len(finer) < 2 or not (part.looped or before < least):
            return part
        pieces, _, _ = self._parts(job, finer, language)
        words = [word for piece in pieces for word in piece.words]
        looped = any(piece.looped for piece in pieces)
        made = _Part(part.span, words, looped, part.syllables)
        after = made.coverage(language)
        return made if after is not None and abs(1 - after) < abs(1 - before) else part

    def _windows(
        self,
        samples: NDArray[np.float32],
        spans: list[Interval],
        language: str | None,
        nuclei_s: Sequence[float] = (),
        check: Callable[[], None] = lambda: None,
    ) -> Windows:
        cuts = [
            samples[int(s.start_s * SAMPLE_RATE_HZ) : int(s.end_s * SAMPLE_RATE_HZ)] for s in spans
        ]
        features = self.features(cuts, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        counts = np.searchsorted(nuclei_s, [(span.start_s, span.end_s) for span in spans])
        return Windows(
            features.input_features,
            [span.duration_s for span in spans],
            language,
            [int(last - first) for first, last in counts],
            check,
        )

    def _words(
        self, decoded: Decoded, attention: NDArray[np.float32], span: Interval, language: str
    ) -> list[Word]:
        """Words with times. attention: (1 + tokens, frames) of the alignment heads."""
        starts = word_times.token_times(attention)
        end = min(attention.shape[1] * word_times.FRAME_S, span.duration_s)
        starts = np.append(starts[: len(decoded.tokens)], end)
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
