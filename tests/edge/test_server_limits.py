"""The real function, served by Deno: large, slow and hostile bodies, answers that stall."""

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from box import Answer, Box, running_box
from deno_server import EdgeFunction, edge_function, edge_process
from function_requests import (
    FLUENCY,
    HANG_UP_S,
    KEY,
    assert_signed,
    cpu_seconds,
    data_uri,
    needs_proc,
    peak_mb,
)


def test_too_large_a_body_is_413(function: EdgeFunction, box: Box) -> None:
    """14: 413 whether the size is announced or only shows while the body is read."""
    big = json.dumps({**FLUENCY, "audio": "A" * 15_000_000}).encode()
    chunks = (big[at : at + 65_536] for at in range(0, len(big), 65_536))
    for body in (big, chunks):
        try:
            answer = httpx.post(function.url, content=body)
        except httpx.WriteError:  # refused before all of it was sent, which is the point
            continue
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert httpx.post(function.url, json=FLUENCY).status_code == 200
    assert [request.path for request in box.received] == ["/fluency"]


def test_an_error_that_stalls_is_504_in_time(box: Box, deno: Path) -> None:
    """An error whose body never ends is the deadline's 504, and the box is hung up on."""
    box.behaviour = lambda _: Answer(422, b'{"error": {}}', send_bytes=5, stalls=True)
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_TIMEOUT_S": "0.5"}
    with edge_function(env, deno) as url:
        answer = httpx.post(url, json=FLUENCY, timeout=HANG_UP_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "gateway_timeout")
    assert box.hung_up == [True]


@pytest.mark.parametrize("status", [200, 500])
def test_a_large_answer_that_stalls_ends_in_time(box: Box, deno: Path, status: int) -> None:
    """Over what is checked an answer is streamed; the deadline ends that too."""
    body = json.dumps("x" * (12 << 20)).encode()
    box.behaviour = lambda _: Answer(status, body, send_bytes=10 << 20, stalls=True)
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_TIMEOUT_S": "1.5"}
    with edge_function(env, deno) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.post(url, json=FLUENCY, timeout=HANG_UP_S)


def test_a_client_that_leaves_a_large_answer_is_passed_on(function: EdgeFunction, box: Box) -> None:
    """When the app hangs up in the middle of a streamed answer, the box is hung up on too."""
    body = json.dumps("x" * (12 << 20)).encode()
    box.behaviour = lambda _: Answer(200, body, send_bytes=10 << 20, stalls=True)
    with httpx.stream("POST", function.url, json=FLUENCY, timeout=HANG_UP_S) as answer:
        assert next(answer.iter_raw(1))
    deadline = time.monotonic() + HANG_UP_S
    while not box.hung_up:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert box.hung_up == [True]


def test_a_body_that_comes_too_slowly_is_408(box: Box, deno: Path) -> None:
    """A body that stops is given up when its time is over; the function goes on."""
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_BODY_TIMEOUT_S": "0.5"}
    with edge_function(env, deno) as url:
        host, port = url.removeprefix("http://").split(":")
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=HANG_UP_S) as client:
            client.sendall(head.encode() + b'{"endpoint":')
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert httpx.post(url, json=FLUENCY).status_code == 200
    assert len(box.received) == 1


NEXT = b'{"endpoint":"fluency","audio":"data:audio/wav;base64,AAAA","x":['
HOSTILE = [b"1,", b'"",', b"{},", b"[],", b'"data:,",']


@needs_proc
def test_hostile_bodies_cost_next_to_nothing(deno: Path) -> None:
    """13 MB that hold no file are refused for less CPU and memory than a file of 1 MB takes."""
    with edge_process({"GPU_BACKEND_URL": "http://127.0.0.1:9"}, deno) as function:
        before_mb, before_s = peak_mb(function), cpu_seconds(function)
        for unit in HOSTILE:
            body = NEXT + unit * (13_000_000 // len(unit)) + b"0]}"
            try:
                answer = httpx.post(function.url, content=body, timeout=240)
            except httpx.TransportError:
                continue  # refused before all of it was sent
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                413,
                "payload_too_large",
            )
        grown_mb, cpu_s = peak_mb(function) - before_mb, cpu_seconds(function) - before_s
    print(f"{len(HOSTILE)} bodies took {grown_mb:.0f} MB and {cpu_s:.2f} s of CPU")
    assert grown_mb < 60
    assert cpu_s < len(HOSTILE) * 0.5


@needs_proc
def test_24_large_files_at_once_stay_under_a_workers_memory(deno: Path) -> None:
    """They wait their turn: all are served, and the process never has the platform's 256 MB."""
    clip = os.urandom(10 * 1024 * 1024)
    body = json.dumps({"endpoint": "fluency", "audio": data_uri(clip, "audio/wav")}).encode()
    with running_box() as box:
        env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_KEY_ID": "web"}
        with edge_process(env, deno) as function, ThreadPoolExecutor(24) as pool:
            urls = [function.url] * 24
            statuses = list(pool.map(lambda url: post_again(url, body), urls))
            peak = peak_mb(function)
        assert all(request.parts()["audio"].data == clip for request in box.received)
        assert_signed(box.received[-1])
    print(f"peak resident memory: {peak:.0f} MB")
    assert statuses == [200] * 24
    assert peak < 256


def post_again(url: str, body: bytes) -> int:
    """The status for `body`, sent again as often as the function asks for that."""
    while (answer := httpx.post(url, content=body, timeout=240)).status_code == 503:
        time.sleep(int(answer.headers["Retry-After"]))
    return answer.status_code


@needs_proc
def test_a_10_mib_file_stays_under_130_mb(deno: Path) -> None:
    """A fresh process forwards a file of 10 MiB, signed, and never holds 130 MB."""
    clip = os.urandom(10 * 1024 * 1024)
    body = json.dumps({"endpoint": "fluency", "audio": data_uri(clip, "audio/wav")}).encode()
    with running_box() as box:
        env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_KEY_ID": "web"}
        with edge_process(env, deno) as function:
            assert httpx.post(function.url, content=body, timeout=240).status_code == 200
            peak = peak_mb(function)
        assert box.received[0].parts()["audio"].data == clip
        assert_signed(box.received[0])
    print(f"peak resident memory: {peak:.0f} MB")
    assert peak < 130
