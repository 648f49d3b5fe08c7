"""PyPI's `replicate` 2.0 beta works against the router: its base URL ends with /v1."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pypi_tools import pypi_folder, python
from tests.e2e.service import Service, running_service

KEY = "a-key-of-the-team-0123456789abcdef"
BETA_CLIENT = ("replicate", "2.0.0b4")
BEGIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import replicate
given = json.load(sys.stdin)
client = replicate.Replicate(
    bearer_token=given["key"], base_url=given["url"] + "/v1", max_retries=0
)
"""


@pytest.fixture(scope="module")
def service(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key."""
    state = tmp_path_factory.mktemp("beta") / "state"
    with running_service(echo_packages, state, {"CALLME_KEYS": f"team:{KEY}"}) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        yield service


def beta(service: Service, script: str) -> Any:
    """What the script prints, with `client` and `given` in it."""
    given = {"url": service.url, "key": KEY}
    env = {"REPLICATE_API_TOKEN": KEY, "REPLICATE_BASE_URL": f"{service.url}/v1"}
    return python(pypi_folder(BETA_CLIENT), BEGIN + script, given, env)


def test_files(service: Service) -> None:
    """Its upload names the file, its type and its metadata in parts of their own; the file is an
    input by its URL, with the ending of its name."""
    script = """
made = client.files.create(
    content=b"hello", filename="a photo.PNG", type="image/png",
    metadata={"from": "beta", "deep": {"tags": ["a", "b"]}},
)
got = client.files.get(file_id=made.id)
output = client.run("acme/echo", input={"file": made.urls.get})
listed = [f.id for f in client.files.list()]
client.files.delete(file_id=made.id)
print(json.dumps({"made": made.to_dict(mode="json"), "got": got.to_dict(mode="json"),
                  "output": output, "listed": listed}))
"""
    told = beta(service, script)
    made = told["made"]
    assert told["got"] == made
    assert (made["name"], made["content_type"], made["size"]) == ("a photo.PNG", "image/png", 5)
    assert made["metadata"] == {"from": "beta", "deep": {"tags": ["a", "b"]}}
    assert told["output"]["file_sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert told["output"]["file_suffix"] == ".png"
    assert told["listed"] == [made["id"]]
    assert service.spooled() == []
