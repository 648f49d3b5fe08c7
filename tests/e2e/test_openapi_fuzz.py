"""Requests generated from /openapi.json, valid and not, over every API."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.service import running_service
from tests.package_copies import packages_in
from tests.waiting import wait_until

# Each operation gets so many random requests, beside those that cover its schema's borders.
EXAMPLES = os.environ.get("CALLME_FUZZ_EXAMPLES", "20")


def test_no_request_is_answered_with_a_500(tmp_path: Path) -> None:
    """schemathesis finds no server error, and the service leaves nothing behind.

    /events never ends and is tested by itself.
    """
    packages = packages_in(tmp_path / "packages", "former")
    with running_service(packages, tmp_path / "state") as service:
        program = Path(sys.executable).parent / "schemathesis"
        done = subprocess.run(
            [
                *(str(program), "run", f"{service.url}/openapi.json"),
                *("--checks", "not_a_server_error", "--phases", "coverage,fuzzing"),
                *("--max-examples", EXAMPLES, "--exclude-path", "/events"),
                *("--request-timeout", "60", "--generation-deterministic", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=800,  # a busy machine takes ten times as long as an idle one
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert found is not None, done.stdout
        assert found[1] == found[2]
        assert int(found[1]) > 500
        print(found[0])
        answer = service.http.post("/former", files={"text": (None, "still here")})
        assert answer.json()["words"] == 2
        # What is left are the files that it has uploaded to be kept.
        kept = service.http.get("/v1/files").json()["results"]
        wait_until(lambda: len(service.spooled()) == len(kept))
        assert "Traceback" not in service.log()
