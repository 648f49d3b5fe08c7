"""Fixtures: a stand-in box, and each Deno the function must run on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from box import Box, running_box
from deno_server import find_deno
from npm_tools import DENO_HOSTED, npm_binary


@pytest.fixture
def box() -> Iterator[Box]:
    """A fresh stand-in for the GPU box."""
    with running_box() as running:
        yield running


@pytest.fixture(params=["pinned", "hosted"], scope="session")
def deno(request: pytest.FixtureRequest) -> Path:
    """The Deno this project pins, and the one the hosted edge runtime is compatible with."""
    return find_deno() if request.param == "pinned" else npm_binary(DENO_HOSTED, "deno")
