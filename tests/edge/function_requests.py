"""What the tests ask the function for, how it signs, and what its process has used."""

import base64
import hashlib
import hmac
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from box import Received
from deno_server import EdgeFunction

KEY = "correct horse battery staple"
WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=")
HANG_UP_S = 10.0
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)


def data_uri(content: bytes, kind: str) -> str:
    """`content` as a base64 data URI of MIME type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


FLUENCY = {"endpoint": "fluency", "audio": data_uri(WAV, "audio/wav")}


def peak_mb(function: EdgeFunction) -> float:
    """The most memory that the function's process has had, MB."""
    status = Path(f"/proc/{function.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def cpu_seconds(function: EdgeFunction) -> float:
    """User and system time of the function's process."""
    fields = Path(f"/proc/{function.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def string_to_sign(head: Sequence[str], body: bytes) -> str:
    """The text under the signature, written a second time, in the router's language.

    `head` is timestamp, nonce, method, path with query, content type.
    """
    return "\n".join(["v2", *head, hashlib.sha256(body).hexdigest()])


def verifier(key: str) -> bytes:
    """What the box keeps of a key, and what signs."""
    return hmac.new(key.encode(), b"callme request signing v2", hashlib.sha256).digest()


def assert_signed(request: Received) -> None:
    """Verifies a recorded request as the router does."""
    timestamp, nonce = request.headers["X-Callme-Timestamp"], request.headers["X-Callme-Nonce"]
    kind = request.headers.get("Content-Type", "")
    text = string_to_sign((timestamp, nonce, request.method, request.path, kind), request.body)
    expected = "v2=" + hmac.new(verifier(KEY), text.encode(), hashlib.sha256).hexdigest()
    assert request.headers["X-Callme-Signature"] == expected
    assert abs(int(timestamp) - time.time()) < 60
    assert request.headers["X-Callme-Key-Id"] == "web"
    assert request.headers["X-Callme-Content-Sha256"] == hashlib.sha256(request.body).hexdigest()
