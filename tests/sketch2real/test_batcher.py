"""batcher.py: which requests share a batch, cancellation, progress and previews."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from batcher import Batcher
from errors import OutOfMemory
from PIL import Image
from request import OnStep, Request, Step
from weights import SD15_SCRIBBLE

STEPS = 4
LIMIT_S = 60


class SlowPainter:
    """Paints grey squares whose value is the seed; takes a step whenever it is allowed to."""

    preset = SD15_SCRIBBLE
    device = "cpu"

    def __init__(self, together: int = 4) -> None:
        self.together = together
        self.allowed = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.steps = 0
        self.fits = 4
        self.overflows: int | None = None

    def prompt_for(self, request: Request) -> str:
        return request.prompt

    def paint(self, requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        self.batches.append([request.seeds[0] for request in requests])
        self.began.release()
        for done in range(1, STEPS + 1):
            assert self.allowed.acquire(timeout=LIMIT_S)
            self.steps += 1
            on_step(Step(done, STEPS, torch.full((len(requests), 1), float(done))))
            if len(requests) > self.fits and done == 2:
                raise OutOfMemory("too many")
        if self.overflows in self.batches[-1]:
            raise FloatingPointError("NaN")
        return [Image.new("L", request.control.size, request.seeds[0]) for request in requests]

    def preview(
        self, request: Request, before: torch.Tensor, after: torch.Tensor, done: int
    ) -> Image.Image | None:
        assert (float(before), float(after)) == (done - 1, done)
        return Image.new("L", (2, 2), done)

    def go(self, steps: int = 10_000) -> None:
        """Allow so many steps."""
        self.allowed.release(steps)


def make_request(*seeds: int, prompt: str = "", side: int = 8) -> Request:
    return Request(Image.new("RGB", (side, side)), prompt, None, 1.0, STEPS, 1.0, seeds)


def shades(pictures: Sequence[Image.Image]) -> list[int]:
    return [picture.getpixel((0, 0)) for picture in pictures]


def silent(_done: int, _steps: int) -> None:
    """Ignores progress."""


async def wait_for(condition: Callable[[], bool]) -> None:
    """Until `condition` holds."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def begun(painter: SlowPainter) -> None:
    """Until the painter has begun its next batch."""
    assert await asyncio.to_thread(painter.began.acquire, timeout=LIMIT_S)


async def test_those_who_wait_are_painted_together_by_bucket() -> None:
    """While one is painted, others come: same bucket together, in order, at most `together`."""
    painter = SlowPainter(together=3)
    batcher = Batcher(painter)
    first = asyncio.create_task(batcher.paint(make_request(1), silent))
    await begun(painter)
    requests = [
        make_request(2),
        make_request(3, side=16),
        make_request(4, 5),
        make_request(6),
        make_request(7, side=16),
    ]
    tasks = []
    for request in requests:
        tasks.append(asyncio.create_task(batcher.paint(request, silent)))
        await asyncio.sleep(0)
    painter.go()
    pictures = await asyncio.gather(first, *tasks)
    assert painter.batches == [[1], [2, 4, 5], [3, 7], [6]]
    assert [shades(each) for each in pictures] == [[1], [2], [3], [4, 5], [6], [7]]


async def test_requests_with_and_without_a_prompt_are_two_buckets() -> None:
    """Guess mode is for all of a batch, so requests with a prompt are painted apart."""
    request = make_request(1)
    assert request.bucket == replace(request, seeds=(9,), negative_prompt="fog").bucket
    assert (
        replace(request, prompt="a").bucket == replace(request, prompt="b").bucket != request.bucket
    )
    assert replace(request, steps=5).bucket != request.bucket
    assert replace(request, control_scale=0.5).bucket != request.bucket


async def test_progress_counts_all_pictures_and_never_falls() -> None:
    """Two pictures on a processor, one after the other: 1 to 8 of 8, each once, rising."""
    painter = SlowPainter(together=1)
    seen: list[tuple[int, int]] = []
    painter.go()
    await Batcher(painter).paint(make_request(1, 2), lambda done, steps: seen.append((done, steps)))
    assert seen[-1] == (2 * STEPS, 2 * STEPS)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


async def test_a_batch_that_does_not_fit_is_painted_one_by_one() -> None:
    """Progress waits until the second attempt has caught up; every request gets its picture."""
    painter = SlowPainter()
    painter.fits = 1
    painter.go()
    seen: list[int] = []
    pictures = await Batcher(painter).paint(
        make_request(1, 2, 3), lambda done, _: seen.append(done)
    )
    assert shades(pictures) == [1, 2, 3]
    assert painter.batches == [[1, 2, 3], [1], [2], [3]]
    assert seen == sorted(set(seen))
    assert seen[-1] == 3 * STEPS


async def test_ones_nan_is_not_its_neighbours() -> None:
    """Painted together with one that overflows, the others still get their pictures."""
    painter = SlowPainter()
    painter.overflows = 7
    batcher = Batcher(painter)
    first = asyncio.create_task(batcher.paint(make_request(1), silent))
    await begun(painter)
    rest = asyncio.gather(
        batcher.paint(make_request(6, 8), silent),
        batcher.paint(make_request(7), silent),
        return_exceptions=True,
    )
    await wait_for(lambda: len(batcher._waiting) == 3)
    painter.go()
    assert shades(await first) == [1]
    good, bad = await rest
    assert painter.batches == [[1], [6, 8, 7], [6], [8], [7]]
    assert shades(good) == [6, 8]
    assert isinstance(bad, FloatingPointError)


async def test_one_that_does_not_fit_alone_fails_alone() -> None:
    """The error reaches its request; the next request is painted."""
    painter = SlowPainter()
    painter.fits = 0
    painter.go()
    batcher = Batcher(painter)
    with pytest.raises(OutOfMemory):
        await batcher.paint(make_request(1), silent)
    painter.fits = 4
    assert shades(await batcher.paint(make_request(2), silent)) == [2]


async def test_cancelled_while_painting_stops_after_the_step_it_is_in() -> None:
    """After a cancellation no further step is taken, and the next request is painted."""
    painter = SlowPainter()
    batcher = Batcher(painter)
    task = asyncio.create_task(batcher.paint(make_request(1), silent))
    await begun(painter)
    painter.go(1)
    await wait_for(lambda: painter.steps == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    painter.go()
    assert shades(await batcher.paint(make_request(2), silent)) == [2]
    assert painter.steps <= 2 + STEPS  # the one under way may have been the second


async def test_cancelled_in_a_batch_leaves_the_others_their_picture() -> None:
    """One of two painted together is cancelled: it ends at once, the other is not affected."""
    painter = SlowPainter()
    batcher = Batcher(painter)
    blocker = asyncio.create_task(batcher.paint(make_request(0), silent))
    await begun(painter)
    leaves, stays = (asyncio.create_task(batcher.paint(make_request(n), silent)) for n in (1, 2))
    await asyncio.sleep(0)
    painter.go(STEPS)
    await blocker
    await begun(painter)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    painter.go()
    assert shades(await stays) == [2]
    assert painter.batches == [[0], [1, 2]]


async def test_cancelled_while_waiting_is_never_painted() -> None:
    """Cancelled in the queue, it takes no step."""
    painter = SlowPainter()
    batcher = Batcher(painter)
    first = asyncio.create_task(batcher.paint(make_request(1), silent))
    await begun(painter)
    second = asyncio.create_task(batcher.paint(make_request(2), silent))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    painter.go()
    assert shades(await first) == [1]
    assert shades(await batcher.paint(make_request(3), silent)) == [3]
    assert painter.batches == [[1], [3]]


async def test_a_bug_fails_its_own_order_only() -> None:
    """An exception of the model reaches its request, and the thread goes on."""
    painter = SlowPainter()
    batcher = Batcher(painter)
    painter.go()

    def broken(_requests: Sequence[Request], _on_step: OnStep) -> list[Image.Image]:
        raise ZeroDivisionError

    whole, painter.paint = painter.paint, broken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await batcher.paint(make_request(1), silent)
    painter.paint = whole  # type: ignore[method-assign]
    assert shades(await batcher.paint(make_request(2), silent)) == [2]


async def test_previews_are_of_the_first_picture_between_first_and_last_step() -> None:
    """Only on request: from the second step on, when there are two latents to compare."""
    painter = SlowPainter()
    painter.go()
    shown: list[Image.Image] = []
    await Batcher(painter).paint(make_request(1, 2), silent, shown.append)
    assert shades(shown) == [2, 3]


async def test_callbacks_run_where_they_were_asked_for() -> None:
    """In the event loop's thread and in the caller's context, by which coglet assigns log lines."""
    mine = contextvars.ContextVar("mine", default="none")
    painter = SlowPainter()
    batcher = Batcher(painter)
    seen: list[tuple[str, str, int]] = []

    async def customer(name: str) -> None:
        mine.set(name)
        await batcher.paint(
            make_request(1), lambda *_: seen.append((name, mine.get(), threading.get_ident()))
        )

    painter.go()
    await asyncio.gather(customer("first"), customer("second"))
    assert {name for name, *_ in seen} == {"first", "second"}
    assert all(name == found for name, found, _ in seen)
    assert {thread for *_, thread in seen} == {threading.get_ident()}
