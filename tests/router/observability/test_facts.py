"""Facts reach every listener, in order."""

from __future__ import annotations

import asyncio

import pytest

from router.observability.facts import Fact, Facts, LoadEnded, ModelChanged, SleepRefused
from tests.waiting import until

STARTING, READY = ModelChanged("echo", "starting"), ModelChanged("echo", "ready")


def test_a_listener_that_fails_keeps_no_other_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged."""
    heard: list[Fact] = []

    def broken(fact: Fact) -> None:
        raise ValueError

    facts = Facts([broken, heard.append], delay_s=0)
    for fact in (STARTING, READY):
        facts.tell(fact)
    assert heard == [STARTING, READY]
    assert "a listener failed" in caplog.text


async def test_facts_wait_for_a_moment() -> None:
    """They are delivered together, in order, and each once; a later one waits again."""
    heard: list[Fact] = []
    facts = Facts([heard.append])
    facts.tell(STARTING)
    facts.tell(READY)
    assert heard == []
    await until(lambda: bool(heard))
    assert heard == [STARTING, READY]
    facts.tell(STARTING)
    assert len(heard) == 2
    await until(lambda: len(heard) == 3)


async def test_a_reader_gets_them_at_once() -> None:
    """Nothing is delivered a second time when the time is up."""
    heard: list[Fact] = []
    facts = Facts([heard.append], delay_s=0.001)
    facts.tell(STARTING)
    facts.deliver()
    assert heard == [STARTING]
    facts.tell(READY)
    await until(lambda: len(heard) == 2)
    await asyncio.sleep(0.01)
    assert heard == [STARTING, READY]


async def test_a_new_listener_hears_what_comes_then() -> None:
    """What was told before is not its own."""
    heard: list[Fact] = []
    facts = Facts()
    facts.tell(STARTING)
    facts.add(heard.append)
    facts.tell(READY)
    facts.deliver()
    assert heard == [READY]


def test_a_listener_hears_the_kinds_that_it_wants() -> None:
    """Also when it is added or removed after facts of that kind were told."""
    every: list[Fact] = []
    refusals: list[Fact] = []
    facts = Facts([every.append], delay_s=0)
    refused = SleepRefused("echo", "busy")
    facts.tell(refused)
    facts.add(refusals.append, SleepRefused, LoadEnded)
    facts.tell(STARTING)
    facts.tell(refused)
    facts.remove(every.append)
    facts.tell(refused)
    assert every == [refused, STARTING, refused]
    assert refusals == [refused, refused]
