"""A runner in a sub-folder (`run: "src/run.py:Runner"`) starts as under Cog."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.e2e.service import ROOT, running_service
from tests.e2e.test_streaming import EVENTS, read


def test_a_runner_in_a_subfolder(tmp_path: Path) -> None:
    """Its schema is made, it imports from the folder of cog.yaml, it finds the file beside it,
    its module can be pickled, and it streams."""
    packages = tmp_path / "packages"
    shutil.copytree(ROOT / "tests" / "packages" / "nested", packages / "nested")
    with running_service(packages, tmp_path / "state") as service:
        answer = service.http.post("/nested", files={"greeting": (None, "good morning")})
        assert answer.json() == ["good morning world", "run"]
        schema = service.http.get("/models/nested/openapi.json").json()
        inputs = schema["components"]["schemas"]["Input"]["properties"]
        assert inputs["greeting"]["default"] == "hello"
        assert schema["paths"]["/predictions"]["post"]["x-cog-streaming"] is True
        body: dict[str, Any] = {"input": {}}
        path = "/models/nested/predictions"
        with service.http.stream("POST", path, json=body, headers=EVENTS) as response:
            chunks = [json.loads(d)["chunk"] for n, _, d in read(response) if n == "output"]
        assert chunks == ["hello world", "run"]
