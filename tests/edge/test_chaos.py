"""After thousands of odd requests the function still serves, and has not grown."""

import base64
import json
import random
import re
import socket
from pathlib import Path

import httpx
import pytest
from box import Answer, Box, Received
from deno_server import edge_process

FLUENCY = {"endpoint": "fluency", "audio": "data:audio/wav;base64,UklGRg=="}
ROUNDS = 1500
GROWTH_MIB = 100  # V8 collects when it likes; a leak of the bodies below would be 400 MiB


def resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def random_body(rng: random.Random) -> bytes:
    """A good request, a broken one, or one that ends early."""
    clip = base64.b64encode(rng.randbytes(rng.randrange(1, 400_000))).decode()
    good = json.dumps({"endpoint": "fluency", "audio": f"data:audio/webm;base64,{clip}"}).encode()
    kind = rng.randrange(5)
    if kind == 0:
        return good
    if kind == 1:  # cut off anywhere
        return good[: rng.randrange(len(good))]
    if kind == 2:  # some bytes replaced by any others
        spoiled = bytearray(good[:3000])
        for _ in range(rng.randrange(1, 9)):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        return bytes(spoiled)
    if kind == 3:
        return rng.randbytes(rng.randrange(2000))
    values: list[object] = [
        None,
        True,
        0,
        "",
        "data:,",
        "data:;base64,=",
        [],
        {},
        "é" * 9000,
        "\\" * 9001,
    ]
    names = ["endpoint", "audio", "image", "async", "prediction", "audio_url", "x", "a b"]
    document = {rng.choice(names): rng.choice(values) for _ in range(4)}
    return json.dumps({**document, "endpoint": rng.choice(["fluency", "grounding", 5])}).encode()


def hang_up_early(url: str, body: bytes) -> None:
    """Announces `body`, sends a part of it and leaves."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body) + 10}\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body[:5000])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_it_still_serves_after_the_worst(box: Box) -> None:
    """Good, broken, random and abandoned requests: every answer is JSON with a fitting status."""
    rng = random.Random(20261123)
    statuses = [200, 422, 429, 500]
    refusal = b'{"error":{"code":"x","message":"y"}}'

    def answer(_: Received) -> Answer:
        return Answer(rng.choice(statuses), refusal)

    box.behaviour = answer
    with edge_process({"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": "k"}) as function:
        seen: set[int] = set()
        with httpx.Client() as client:
            for count in range(ROUNDS):
                if count == ROUNDS // 5:
                    settled_mib = resident_mib(function.process.pid)
                body = random_body(rng)
                if rng.randrange(20) == 0:
                    hang_up_early(function.url, body)
                    continue
                reply = client.post(function.url, content=body)
                seen.add(reply.status_code)
                assert isinstance(reply.json(), dict), reply.text
                assert reply.headers["Access-Control-Allow-Origin"] == "*"
                box.received.clear()
            assert seen == {200, 400, 422, 429, 500}
            assert "internal_error" not in "\n".join(function.lines)
            grown_mib = resident_mib(function.process.pid) - settled_mib
            box.behaviour = lambda _: Answer()
            assert client.post(function.url, json=FLUENCY).json() == {"ok": True}
    print(f"resident memory grew by {grown_mib:.0f} MiB")
    assert grown_mib < GROWTH_MIB
