"""Facts reach every listener, in order."""

from __future__ import annotations

import pytest

from router.observability.facts import Fact, Facts, ModelChanged


def test_a_listener_that_fails_keeps_no_other_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged."""
    heard: list[Fact] = []

    def broken(fact: Fact) -> None:
        raise ValueError

    facts = Facts([broken, heard.append])
    told = [ModelChanged("echo", "starting"), ModelChanged("echo", "ready")]
    for fact in told:
        facts.tell(fact)
    assert heard == told
    assert "a listener failed" in caplog.text
