"""How fluently does this person speak? A recording in, the measures of fluency out."""

import os
from pathlib import Path as FilePath

import reading
import report
import torch
from acoustics import analyse, warm_up
from asr import Transcriber, windows
from audio import read as read_audio
from cog import BaseRunner, Input, Path
from errors import InvalidInput
from outputs import Fluency
from score import ScoreMap
from timeline import save as save_picture
from vad import SileroVad
from weights import choose

# One literal each, however long: `cog build` reads them statically and would show the quotes of
# pieces put together.
# ruff: noqa: E501
AUDIO = "The recording: WAV, MP3, M4A/AAC, WebM/Opus, Ogg, FLAC or AIFF, any rate and channel count, 0 s to 10 minutes. The kind is read off the bytes, not the name."
LANGUAGE = "Language spoken, as an ISO 639-1 code ('en', 'es', 'ja' …), or 'auto' to detect it."
PAUSE_THRESHOLD = (
    "Shortest silence that counts as a pause, in seconds. The literature's value is 0.25."
)
TRANSCRIBE = "Transcribe the words. Without them the answer has no transcript, no repetitions and repairs, and comes a lot sooner."
REFERENCE_TEXT = "For a reading task: the text that was to be read, at most 3000 words. Adds `reading`: words correct per minute, omissions, insertions, substitutions."
CONTOURS = "Add pitch (Hz, 0 where unvoiced) and intensity (dB), 50 values a second."
TIMELINE = "Add a PNG: waveform, pauses shaded, syllables, words; ten seconds a row."


class Runner(BaseRunner):
    """Pauses, syllables and pitch from the signal; words from Whisper; a score from both."""

    def setup(self) -> None:
        """Load the two models and run them once, so that the first request is not the slow one."""
        if threads := os.environ.get("THREADS"):
            torch.set_num_threads(int(threads))
        choice = choose()
        self.model = choice.name
        self.scores = ScoreMap.load()
        self.vad = SileroVad.load()
        self.transcriber = Transcriber(choice)
        warm_up(self.vad)
        self.transcriber.warm_up()

    def run(
        self,
        audio: Path = Input(description=AUDIO),
        language: str = Input(
            description=LANGUAGE,
            default="auto",
            max_length=10,
        ),
        pause_threshold: float = Input(
            description=PAUSE_THRESHOLD,
            default=0.25,
            ge=0.1,
            le=2.0,
        ),
        transcribe: bool = Input(
            description=TRANSCRIBE,
            default=True,
        ),
        reference_text: str | None = Input(
            description=REFERENCE_TEXT,
            default=None,
            max_length=30000,
        ),
        contours: bool = Input(
            description=CONTOURS,
            default=False,
        ),
        timeline: bool = Input(
            description=TIMELINE,
            default=False,
        ),
    ) -> Fluency:
        """Measure one recording.

        Raises:
            InvalidInput: a recording, language or text that cannot be used.
        """
        expected = self._check(language, transcribe, reference_text)
        recording = read_audio(FilePath(audio))
        heard = analyse(recording.samples, self.vad, pause_threshold)
        if heard is None:
            return report.silence(recording.duration_s, pause_threshold, self.scores)
        understood = None
        if transcribe:
            spans = windows(heard.segments, recording.duration_s)
            known = None if language == "auto" else language
            understood = self.transcriber.transcribe(heard.samples, spans, known)
        answer = report.compose(
            heard,
            understood,
            duration_s=recording.duration_s,
            pause_threshold_s=pause_threshold,
            reference=expected,
            scores=self.scores,
            model=self.model if transcribe else None,
            contours=contours,
        )
        if timeline:
            answer.timeline = Path(save_picture(heard.samples, answer))
        return answer

    def _check(self, language: str, transcribe: bool, text: str | None) -> list[str] | None:
        """The words of the reference text, if there is one. Everything that is cheap to refuse."""
        if transcribe and language != "auto":
            self.transcriber.check_language(language)
        if text is None:
            return None
        if not transcribe:
            raise InvalidInput(
                "Cannot compare: 'transcribe' must be true with a 'reference_text', got false"
            )
        return reading.reference_words(text)
