"""Clients that offer HTTP/2 with every plain POST: their requests are answered all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.service import Service

PROGRAM = Path(__file__).with_name("java") / "Post.java"


def can_run_java_sources() -> bool:
    """Whether there is a Java with its compiler (17 or so; the launcher compiles one file)."""
    return bool(shutil.which("java") and shutil.which("javac"))


@pytest.mark.skipif(not can_run_java_sources(), reason="no JDK: apt-get install openjdk-17-jdk")
def test_javas_own_client(echo: Service) -> None:
    """`java.net.http.HttpClient` as it comes: JSON twice on one connection, then a form."""
    done = subprocess.run(
        ["java", str(PROGRAM), echo.url], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [status for status, _ in answers] == ["200", "200", "200"], done.stdout
    first, second, form = (json.loads(body) for _, body in answers)
    assert [first["output"]["text"], second["output"]["text"]] == ["first", "second"]
    assert (form["text"], form["file_bytes"]) == ("form", 300_000)


def curl_speaks_http2() -> bool:
    """Whether there is a curl that can offer it."""
    if not shutil.which("curl"):
        return False
    said = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False)
    return "HTTP2" in said.stdout


@pytest.mark.skipif(not curl_speaks_http2(), reason="no curl with HTTP2")
def test_curl_with_http2(echo: Service, tmp_path: Path) -> None:
    """`curl --http2`: JSON, and a form with a file."""

    def curl(path: str, *arguments: str) -> object:
        command = ["curl", "-sS", "--fail-with-body", "--http2", *arguments, f"{echo.url}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    given = ("-H", "Content-Type: application/json", "-d", '{"input":{"text":"curl"}}')
    answer = curl("/models/echo/predictions", *given)
    assert isinstance(answer, dict)
    assert answer["output"]["text"] == "curl"
    (tmp_path / "a.bin").write_bytes(bytes(300_000))
    form = curl("/echo", "-F", "text=form", "-F", f"file=@{tmp_path / 'a.bin'}")
    assert isinstance(form, dict)
    assert (form["text"], form["file_bytes"]) == ("form", 300_000)
