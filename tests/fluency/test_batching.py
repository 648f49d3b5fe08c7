"""Several requests at once: one batch for the model, and every answer as if it were alone."""

import asyncio
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asr
import decoding
import numpy as np
import pytest
import recogniser as recogniser_module
import report
import run
import torch
from batching import Batcher
from conftest import Samples
from pauses import Interval
from recogniser import Heard, Recogniser, Windows

Recording = Callable[[str], Samples]
PATIENCE_S = 240


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextmanager
def held(batcher: Batcher[Any, Any], waiting: int) -> Iterator[None]:
    """Keep the model busy until so many jobs wait for it."""
    with batcher._turn:
        yield
        wait_for(lambda: len(batcher._waiting) == waiting)


def test_what_waits_is_done_together() -> None:
    """Jobs that come while the model is busy go through it in one batch, first come first."""
    batches: list[list[int]] = []

    def work(jobs: list[int]) -> list[int]:
        batches.append(jobs)
        return [10 * job for job in jobs]

    batcher = Batcher(work, lambda _: 1, limit=3)
    with ThreadPoolExecutor(5) as threads:
        results = []
        with held(batcher, 5):
            for job in range(5):
                results.append(threads.submit(batcher.submit, job))
                wait_for(lambda job=job: len(batcher._waiting) == job + 1)  # type: ignore[misc]
        assert [result.result(PATIENCE_S) for result in results] == [0, 10, 20, 30, 40]
    assert batches == [[0, 1, 2], [3, 4]]
    assert batcher.submit(7) == 70  # alone, at once


def test_a_large_job_is_done_alone() -> None:
    """Sizes add up to the limit at most; one above it still gets its turn."""
    batches: list[list[int]] = []

    def work(jobs: list[int]) -> list[int]:
        batches.append(jobs)
        return jobs

    batcher = Batcher(work, lambda job: job, limit=4)
    with ThreadPoolExecutor(4) as threads, held(batcher, 4):
        for count, size in enumerate((1, 9, 2, 2), start=1):
            threads.submit(batcher.submit, size)
            wait_for(lambda count=count: len(batcher._waiting) == count)  # type: ignore[misc]
    assert batches == [[1], [9], [2, 2]]


def test_an_error_stays_with_its_job() -> None:
    """The others of its batch are done again without it; the batcher works on."""

    def work(jobs: list[int]) -> list[int]:
        if 0 in jobs:
            raise ZeroDivisionError
        return jobs

    batcher = Batcher(work, lambda _: 1, limit=8)
    with ThreadPoolExecutor(3) as threads:
        with held(batcher, 3):
            results = [threads.submit(batcher.submit, job) for job in (1, 0, 2)]
        assert results[0].result(PATIENCE_S) == 1
        assert results[2].result(PATIENCE_S) == 2
        with pytest.raises(ZeroDivisionError):
            results[1].result(PATIENCE_S)
    assert batcher.submit(5) == 5


def test_what_failed_in_a_batch_is_gone_before_the_retry() -> None:
    """The retries hold no tensor of the failed call, nor does the error that a caller keeps."""
    alive: list[int] = []
    made: list[weakref.ref[torch.Tensor]] = []

    def work(jobs: list[str]) -> list[str]:
        alive.append(sum(tensor() is not None for tensor in made))
        states = torch.ones(10)
        made.append(weakref.ref(states))
        if len(jobs) > 1 or jobs == ["bad"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return jobs

    batcher = Batcher(work, lambda _: 1, limit=8)
    with ThreadPoolExecutor(3) as threads:
        with held(batcher, 3):
            results = [threads.submit(batcher.submit, job) for job in ("a", "bad", "b")]
        assert [results[0].result(PATIENCE_S), results[2].result(PATIENCE_S)] == ["a", "b"]
        error = results[1].exception(PATIENCE_S)
    assert isinstance(error, torch.OutOfMemoryError)
    assert alive == [0, 0, 0, 0]
    assert [tensor() for tensor in made] == [None] * 4


@pytest.fixture(scope="module")
def transcriber(runner: Any) -> asr.Transcriber:
    made: asr.Transcriber = runner.pipeline.transcriber
    return made


@pytest.fixture(scope="module")
def jobs(transcriber: asr.Transcriber, recording: Recording) -> list[Windows]:
    """Two requests: one whose language is to be found, one of two windows in another language."""
    one, two = recording("mary.wav"), recording("austen-0880.wav")
    half = len(two) / 32_000
    return [
        transcriber._windows(one, [Interval(0, len(one) / 16_000)], None),
        transcriber._windows(two, [Interval(0, half), Interval(half, 2 * half)], "de"),
    ]


@pytest.fixture(scope="module")
def encode(transcriber: asr.Transcriber) -> Callable[[torch.Tensor], torch.Tensor]:
    """The encoder, which takes most of the time: each batch goes through it once for all tests."""
    known: dict[tuple[int, float], torch.Tensor] = {}
    encoder = transcriber.recogniser.encode

    def remembering(mel: torch.Tensor) -> torch.Tensor:
        key = (len(mel), float(mel.sum()))
        if key not in known:
            known[key] = encoder(mel)
        return known[key]

    return remembering


def assert_same(together: list[Heard], alone: list[Heard]) -> None:
    for one, other in zip(together, alone, strict=True):
        assert one.language == other.language
        assert one.probability == pytest.approx(other.probability, abs=1e-3)
        assert [d.tokens for d in one.decoded] == [d.tokens for d in other.decoded]
        for mine, theirs in zip(one.decoded, other.decoded, strict=True):
            assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-3)
        for here, there in zip(one.attention, other.attention, strict=True):
            assert here is not None
            assert there is not None
            assert here.shape == there.shape
            assert np.abs(here - there).max() < 0.02


@pytest.mark.parametrize("least", [-10.0, 0.0], ids=["beams", "drawn"])
def test_a_batch_of_requests_is_each_alone(
    transcriber: asr.Transcriber,
    jobs: list[Windows],
    encode: Callable[[torch.Tensor], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    least: float,
) -> None:
    """Tokens, probabilities, language and attention: by beam search, and drawn at temperatures when
    no text is likely enough."""
    monkeypatch.setattr(decoding, "MIN_LOG_PROBABILITY", least)
    monkeypatch.setattr(decoding, "TEMPERATURES", (0.6, 1.0))
    monkeypatch.setattr(recogniser_module, "_TOKENS_PER_S", 4)  # drawn text would not end
    recogniser = transcriber.recogniser
    monkeypatch.setattr(recogniser, "encode", encode)
    alone = [recogniser.together([job])[0] for job in jobs]
    assert_same(recogniser.together(jobs), alone)
    assert [heard.language for heard in alone] == ["en", "de"]


def test_too_many_windows_for_the_memory_are_halved(
    transcriber: asr.Transcriber,
    jobs: list[Windows],
    encode: Callable[[torch.Tensor], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One recording of many windows on a small GPU: the answer is the same as at once."""
    recogniser = transcriber.recogniser
    two = jobs[1]
    at_once = recogniser.hear(two)
    sizes: list[int] = []

    def scarce(mel: torch.Tensor) -> torch.Tensor:
        sizes.append(len(mel))
        if len(mel) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(mel)

    monkeypatch.setattr(recogniser, "encode", scarce)
    assert_same([recogniser.hear(two)], [at_once])
    assert sizes == [2, 1, 1]

    def none(mel: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recogniser, "encode", none)
    with pytest.raises(torch.OutOfMemoryError):
        recogniser.hear(two)


def inputs(path: Path) -> dict[str, Any]:
    return {
        "audio": path,
        "language": "en",
        "pause_threshold": 0.25,
        "transcribe": True,
        "reference_text": None,
        "contours": False,
        "timeline": False,
    }


def test_predictions_at_once_share_a_batch(
    runner: Any, golden: Path, monkeypatch: pytest.MonkeyPatch, answer_of: Callable[[str], Any]
) -> None:
    """Three requests where they are allowed: one pass, and the answers of one by one."""
    names = ("mary.wav", "bobby.wav", "austen-0880.wav")
    recogniser: Recogniser = runner.pipeline.transcriber.recogniser
    sizes = []

    def counted(jobs: list[Windows]) -> list[Heard]:
        sizes.append(len(jobs))
        return recogniser.together(jobs)

    async def all_of_them() -> list[Any]:
        calls = [asyncio.ensure_future(runner.run(**inputs(golden / name))) for name in names]
        await asyncio.to_thread(wait_for, lambda: len(recogniser._batcher._waiting) == len(names))
        recogniser._batcher._turn.release()
        return await asyncio.gather(*calls)

    expected = [answer_of(name) for name in names]
    monkeypatch.setattr(recogniser._batcher, "_work", counted)
    with ThreadPoolExecutor(len(names)) as threads:
        monkeypatch.setattr(runner, "threads", threads)
        recogniser._batcher._turn.acquire()
        found = asyncio.run(all_of_them())
    assert sizes == [3]
    for name, answer, alone_answer in zip(names, found, expected, strict=True):
        together, alone = asdict(answer), asdict(alone_answer)
        for mine, theirs in zip(together.pop("words"), alone.pop("words"), strict=True):
            assert mine["text"] == theirs["text"]
            for field in ("start", "end", "confidence"):
                assert mine[field] == pytest.approx(theirs[field], abs=0.021), name
        assert together == alone


def test_a_canceled_prediction_gives_up(
    runner: Any, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread stops at the next step, and the next prediction gets it."""
    batcher = runner.pipeline.transcriber.recogniser._batcher
    works = []
    submit = runner.threads.submit

    def noted(*call: Any) -> Any:
        works.append(submit(*call))
        return works[-1]

    async def cancel_one() -> None:
        call = asyncio.ensure_future(runner.run(**inputs(golden / "mary.wav")))
        await asyncio.to_thread(wait_for, lambda: len(batcher._waiting) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    monkeypatch.setattr(report, "compose", lambda *_, **__: pytest.fail("went on"))
    monkeypatch.setattr(runner.threads, "submit", noted)
    with batcher._turn:
        asyncio.run(cancel_one())
    with pytest.raises(run.Canceled):
        works[0].result(PATIENCE_S)


def test_one_at_a_time_on_a_cpu(runner: Any) -> None:
    """What the router reads off the runner, and what the runner itself allows."""
    expected = run.CONCURRENT if torch.cuda.is_available() else 1
    assert run.Runner.run.__cog_concurrent_max__ == expected
    assert runner.threads._max_workers == expected
    assert f"@concurrent(max={run.CONCURRENT})" in Path(run.__file__).read_text()
