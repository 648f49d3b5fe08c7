"""The steps from a recording's file to the output, in their order."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import heap
import numpy as np
import reading
import report
from acoustics import analyse, warm_up
from asr import Transcriber, windows
from audio import read as read_audio
from cog import Path as CogPath
from errors import InvalidInput
from numpy.typing import NDArray
from outputs import Fluency
from score import ScoreMap
from timeline import save as save_picture
from vad import SileroVad
from weights import choose


@dataclass(frozen=True)
class Options:
    """The inputs of run() except the recording; run.py describes them."""

    language: str = "auto"
    pause_threshold_s: float = 0.25
    transcribe: bool = True
    reference_text: str | None = None
    contours: bool = False
    timeline: bool = False


class Pipeline:
    """The two models and the score map. Several threads may call `run` at once."""

    def __init__(self) -> None:
        """Load what the environment names, and run it once: the first request must not be slow."""
        choice = choose()
        self.model = choice.name
        self.is_parallel = choice.device.type == "cuda"
        self.scores = ScoreMap.load()
        self.vad = SileroVad.load()
        self.transcriber = Transcriber(choice)
        warm_up(self.vad)
        self.transcriber.warm_up()

    def run(
        self, audio: Path, options: Options, check: Callable[[], None] = lambda: None
    ) -> Fluency:
        """Measure one recording. `check` is called between steps; an exception of it ends the work.

        Raises InvalidInput when the recording, the language or the text cannot be used.
        """
        expected = self._check(options)
        recording = read_audio(audio)
        heard = analyse(recording.samples, self.vad, options.pause_threshold_s)
        if not self.is_parallel:
            heap.trim()
        if heard is None:
            return report.silence(recording.duration_s, options.pause_threshold_s, self.scores)
        understood = None
        if options.transcribe:
            understood = self.transcriber.transcribe(
                heard.samples,
                windows(heard.phrases, recording.duration_s),
                self._language(options),
                check,
                nuclei_s=heard.nuclei_s,
                phrases=heard.phrases,
            )
        check()
        answer = report.compose(
            heard,
            understood,
            duration_s=recording.duration_s,
            pause_threshold_s=options.pause_threshold_s,
            reference=expected,
            scores=self.scores,
            model=self.model if options.transcribe else None,
            contours=options.contours,
        )
        if options.timeline:
            answer.timeline = _picture(heard.samples, answer, check)
        if not self.is_parallel:
            heap.trim()
        return answer

    def _check(self, options: Options) -> list[str] | None:
        """Checks that need no audio; returns the words of the reference text, if there is one."""
        if not math.isfinite(options.pause_threshold_s):  # NaN passes every limit of a schema
            raise InvalidInput(
                f"Cannot measure: 'pause_threshold' must be finite, got {options.pause_threshold_s}"
            )
        if options.transcribe:
            self._language(options)
        if options.reference_text is None:
            return None
        if not options.transcribe:
            raise InvalidInput(
                "Cannot compare: 'transcribe' must be true with a 'reference_text', got false"
            )
        return reading.reference_words(options.reference_text)

    def _language(self, options: Options) -> str | None:
        """The model's code of the language, or None if it is to be detected."""
        if options.language.strip().lower() == "auto":
            return None
        return self.transcriber.language_of(options.language)


def _picture(samples: NDArray[np.float32], answer: Fluency, check: Callable[[], None]) -> CogPath:
    """Draw into a file, which is removed if the prediction was cancelled meanwhile."""
    check()
    path = save_picture(samples, answer)
    try:
        check()
    except BaseException:
        path.unlink()
        raise
    return CogPath(path)
