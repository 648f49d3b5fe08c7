"""Cog's entry point: measures how fluently the person in a recording speaks."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as FilePath

import torch
from cog import BaseRunner, Input, Path, concurrent
from outputs import Fluency
from pipeline import Options, Pipeline

# Each is one literal, however long: `cog build` reads them statically, and concatenated pieces
# would keep their quotes.
# ruff: noqa: E501
AUDIO = "The recording: WAV, MP3, M4A/AAC, WebM/Opus, Ogg, FLAC, AIFF, AMR or CAF, any rate and channel count, 0 s to 10 minutes. The format is detected from the content, not from the name."
LANGUAGE = "Language spoken, as a code ('en', 'en-US', 'ja' …), or 'auto' to detect it."
PAUSE_THRESHOLD = (
    "Shortest silence that counts as a pause, in seconds. The literature's value is 0.25."
)
TRANSCRIBE = "Transcribe the words. Without, the answer comes much sooner, but has no transcript, repetitions and repairs."
REFERENCE_TEXT = "For a reading task: the text that was to be read, at most 3000 words. Adds `reading`: words correct per minute, omissions, insertions, substitutions."
CONTOURS = "Add pitch (Hz, 0 where unvoiced) and intensity (dB), 50 values per second."
TIMELINE = "Add a PNG: waveform, pauses shaded, syllables, words; ten seconds per row."
CONCURRENT = 8  # on a GPU: some predictions use the CPU while others are transcribed together


class Canceled(Exception):
    """Raised in the thread of a prediction that was cancelled."""


class Runner(BaseRunner):
    """Pauses, syllables and pitch from the signal; words from Whisper; a score from both."""

    def setup(self) -> None:
        """Load the models and run them once, so that the first request is not the slow one."""
        if threads := os.environ.get("THREADS"):
            torch.set_num_threads(int(threads))
        self.pipeline = Pipeline()
        at_once = CONCURRENT if self.pipeline.is_parallel else 1
        self.threads = ThreadPoolExecutor(at_once, thread_name_prefix="pipeline")

    # CONCURRENT: `cog build` reads the number off the source.
    @concurrent(max=8)  # type: ignore[untyped-decorator]
    async def run(
        self,
        audio: Path = Input(description=AUDIO),
        language: str = Input(
            description=LANGUAGE,
            default="auto",
            max_length=35,
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

        Raises InvalidInput when the recording, the language or the text cannot be used.
        """
        options = Options(language, pause_threshold, transcribe, reference_text, contours, timeline)
        canceled = threading.Event()

        def check() -> None:
            if canceled.is_set():
                raise Canceled

        work = self.threads.submit(self.pipeline.run, FilePath(audio), options, check)
        try:
            return await asyncio.wrap_future(work)
        finally:
            canceled.set()  # a thread cannot be interrupted: it calls check() and ends


if not torch.cuda.is_available():  # on a CPU two at once only take twice as long
    Runner.run.__cog_concurrent_max__ = 1
