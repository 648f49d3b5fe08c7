"""Fixtures: a stand-in box, each Deno the functions must run on, and a Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from box import Box, running_box
from deno_server import EdgeFunction, edge_process, find_deno
from function_requests import KEY
from npm_tools import DENO_HOSTED, npm_binary
from postgres import Database, running_cluster


@pytest.fixture
def box() -> Iterator[Box]:
    """A fresh stand-in for the GPU box."""
    with running_box() as running:
        yield running


@pytest.fixture(params=["pinned", "hosted"], scope="session")
def deno(request: pytest.FixtureRequest) -> Path:
    """The Deno this project pins, and the one the hosted edge runtime is compatible with."""
    return find_deno() if request.param == "pinned" else npm_binary(DENO_HOSTED, "deno")


@pytest.fixture
def function(box: Box, deno: Path) -> Iterator[EdgeFunction]:
    """The function with a key, in front of the stand-in box."""
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_KEY_ID": "web"}
    with edge_process(env, deno) as running:
        yield running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Database]:
    """A Postgres like a Supabase project with all migrations; one for all tests."""
    with running_cluster() as base:
        yield base
