"""The three packages as they are, asleep and awake many times each, while requests come in."""

from __future__ import annotations

import io
import json
import os
import random
import time
import wave
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.e2e.service import ROOT, Service, running_service
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(900)

CYCLES = int(os.environ.get("CALLME_SLEEP_CYCLES", "15"))
TOGETHER_EVERY = 10
"""Rounds, the last of which is four requests at a time."""
LONG_S = 300.0
# Of an output: how long its parts took.
TIMES = frozenset({"timings", "processing_time_s", "predict_time_s"})
# A model falls asleep after this time, and requests come at any moment of a cycle.
IDLE_S = 0.05
LONGEST_PAUSE_S = 0.3

Form = Mapping[str, tuple[str | None, str | bytes]]


def speech() -> bytes:
    """Two seconds of a spoken clip: Whisper and the detector of speech are both at work on it."""
    with wave.open(str(ROOT / "fluency" / "samples" / "speech.wav")) as whole:
        layout, frames = whole.getparams(), whole.readframes(2 * whole.getframerate())
    out = io.BytesIO()
    with wave.open(out, "wb") as cut:
        cut.setparams(layout)
        cut.writeframes(frames)
    return out.getvalue()


def circle(size: int) -> bytes:
    """A drawing."""
    drawn = Image.fromarray(np.full((size, size, 3), 255, np.uint8))
    ImageDraw.Draw(drawn).ellipse((size // 4, size // 4, size // 2, size // 2), outline="black")
    out = io.BytesIO()
    drawn.save(out, "png")
    return out.getvalue()


def form(**fields: object) -> Form:
    """Files as bytes, the rest as text."""
    return {
        name: (f"{name}.bin", value) if isinstance(value, bytes) else (None, str(value))
        for name, value in fields.items()
    }


# What is asked in each cycle, and what now and then besides: Whisper alone takes 3 s.
ASKED: Mapping[str, tuple[Form, Form]] = {
    "fluency": (
        form(audio=speech(), language="en", transcribe="false"),
        form(audio=speech(), language="en"),
    ),
    "grounding": (
        form(image=circle(128), text_queries="a cup", box_threshold=0.05, text_threshold=0.05),
        form(image=circle(128), text_queries="a dog, a plate", box_threshold=0.05),
    ),
    "sketch2real": (
        form(image=circle(128), seed=7, steps=1, width=128, height=128, output_format="png"),
        form(image=circle(128), seed=8, steps=2, width=128, height=128, output_format="png"),
    ),
}


def without_times(output: Any) -> Any:
    """What must be the same each time."""
    if isinstance(output, Mapping):
        return {k: without_times(v) for k, v in output.items() if k not in TIMES}
    return output


class Caller:
    """Calls one model until it has been woken CYCLES times, and compares every answer."""

    def __init__(self, service: Service, name: str) -> None:
        self.service, self.name = service, name
        self.random = random.Random(name)
        self.first: dict[bool, Any] = {}

    def ask(self, full: bool) -> None:
        """One prediction; its output is what it was at first. On a busy machine the first ones take
        longer than a request may; then it is asked again."""
        http = self.service.http
        while True:
            answer = http.post(f"/{self.name}", files=ASKED[self.name][full], timeout=LONG_S)
            if answer.status_code != 202:
                break
            self.service.when_ended(answer)
        assert answer.status_code == 200, answer.text
        output = without_times(answer.json())
        assert output == self.first.setdefault(full, output), (self.name, full)

    def wakes(self) -> int:
        """How often it has been woken."""
        lines = [line for line in self.service.log().splitlines() if '"model awake"' in line]
        return sum(json.loads(line)["model"] == self.name for line in lines)

    def run(self) -> None:
        """Two of three rounds begin when it is asleep, every third at a random moment. Each is one
        request, and in every TOGETHER_EVERY-th round four at a time, one of them full."""
        self.ask(full=False)
        self.ask(full=True)
        number = 0
        while self.wakes() < CYCLES:
            number += 1
            assert number < 4 * CYCLES, f"{self.name} was asleep and is not counted as woken"
            if number % 3:
                wait_until(lambda: self.service.model(self.name)["state"] == "asleep")
            else:
                time.sleep(self.random.uniform(0, LONGEST_PAUSE_S))
            if number % TOGETHER_EVERY:
                self.ask(full=False)
            else:
                with ThreadPoolExecutor(4) as callers:
                    list(callers.map(self.ask, (False, False, True, False)))


def test_many_sleeps_of_each(tmp_path: Path) -> None:
    """No answer differs in one bit from those before the first sleep, and no request fails."""
    env = {
        "CALLME_WEIGHTS": "demo",
        "CALLME_SLEEP": "cpu",
        "CALLME_IDLE_TO_SLEEP_S": str(IDLE_S),
        "CALLME_MIN_RESIDENCY_S": "0.01",
        "OMP_NUM_THREADS": "1",
    }
    with running_service(ROOT, tmp_path / "state", env) as service:
        callers = [Caller(service, name) for name in ASKED]
        with ThreadPoolExecutor(len(callers)) as threads:
            for done in [threads.submit(caller.run) for caller in callers]:
                done.result()
        for name in ASKED:
            view = service.model(name)
            assert view["crashes"] == 0, service.log()[-3000:]
            assert view["sleep"]["wake"]["bytes"] > 1 << 20, view
