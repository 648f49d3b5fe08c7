"""The real function, served by Deno, against a stand-in box: bytes, signatures, failures."""

import base64
import gzip
import hashlib
import hmac
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from box import JSON, Answer, Box, Received, running_box
from deno_server import ROOT, EdgeFunction, edge_function, edge_process

KEY = "correct horse battery staple"
WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=")
VECTORS = Path(__file__).with_name("signature_vectors.json")
HANG_UP_S = 10.0
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)


def data_uri(content: bytes, kind: str) -> str:
    """`content` as a base64 data URI of MIME type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


FLUENCY = {"endpoint": "fluency", "audio": data_uri(WAV, "audio/wav")}


@pytest.fixture
def function(box: Box, deno: Path) -> Iterator[EdgeFunction]:
    """The function with a key, in front of the stand-in box."""
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_KEY_ID": "web"}
    with edge_process(env, deno) as running:
        yield running


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


def test_signature_vectors_agree_with_python() -> None:
    """Python's hmac computes the same strings and signatures that Deno is tested with."""
    vectors = json.loads(VECTORS.read_text())["vectors"]
    assert len(vectors) >= 3
    for v in vectors:
        head = [v[name] for name in ("timestamp", "nonce", "method", "path", "content_type")]
        text = string_to_sign(head, v["body"].encode())
        assert text == v["string_to_sign"]
        assert verifier(v["key"]).hex() == v["verifier"]
        signed = hmac.new(verifier(v["key"]), text.encode(), hashlib.sha256).hexdigest()
        assert v["signature"] == f"v2={signed}"


def test_the_contracts_curl_succeeds_word_for_word(function: EdgeFunction, box: Box) -> None:
    """The curl of README.md, its URL aside, is answered 200 with the model's JSON."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl on PATH")
    readme = (ROOT / "supabase" / "README.md").read_text()
    found = re.search(r"^curl -X POST \S+ -H .*?[^\\]$", readme, re.MULTILINE | re.DOTALL)
    assert found, "README.md lacks the contract's curl"
    words = shlex.split(found[0].replace("\\\n", " "))
    assert words[:2] == ["curl", "-X"] and words[4:6] == ["-H", "Content-Type: application/json"]
    assert json.loads(words[-1]) == FLUENCY
    box.behaviour = lambda _: Answer(body=b'{"speech": false}')
    command = [curl, "-sS", "-w", "\n%{http_code}", *words[1:3], function.url, *words[4:]]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == '{"speech": false}\n200'
    assert box.received[0].parts()["audio"].data == WAV


def test_the_platform_asks_for_no_token_the_curl_lacks() -> None:
    """18: config.toml turns the platform's own JWT check off, as the contract's curl needs."""
    config = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())
    assert config["functions"]["backend_server"]["verify_jwt"] is False


def test_a_model_gets_every_input_as_it_was(function: EdgeFunction, box: Box) -> None:
    """Files arrive to the byte with type and name, text to the letter, and all of it signed."""
    image = os.urandom(100_000)
    sent = {
        "endpoint": "grounding",
        "image": data_uri(image, "image/jpeg"),
        "text_queries": ["a cat, asleep", "naïve 猫"],
        "box_threshold": 0.35,
        "prompt": 'two\nlines, "quoted"\r\n',
        "empty": "",
        "absent": None,
    }
    answer = httpx.post(function.url, json=sent)
    assert answer.status_code == 200
    request = box.received[0]
    assert (request.method, request.path) == ("POST", "/grounding")
    parts = request.parts()
    image_part = parts.pop("image")
    assert image_part.data == image
    assert (image_part.filename, image_part.content_type) == ("image.jpg", "image/jpeg")
    assert json.loads(parts["text_queries"].data) == ["a cat, asleep", "naïve 猫"]
    texts = {name: part.data.decode() for name, part in parts.items() if name != "text_queries"}
    prompt = 'two\nlines, "quoted"\r\n'
    assert texts == {"box_threshold": "0.35", "prompt": prompt, "empty": ""}
    assert all(part.filename is None for part in parts.values())
    assert_signed(request)


def test_a_look_at_a_prediction_is_signed(function: EdgeFunction, box: Box) -> None:
    """`{"prediction": id}` is a signed GET without a body."""
    box.behaviour = lambda _: Answer(body=b'{"id":"abc","status":"processing"}')
    assert httpx.post(function.url, json={"prediction": "abc"}).json()["status"] == "processing"
    assert (box.received[0].method, box.received[0].path) == ("GET", "/predictions/abc")
    assert_signed(box.received[0])


def test_async_is_acknowledged_with_202(function: EdgeFunction, box: Box) -> None:
    """`"async": true` reaches the box as a preference, and its 202 the app."""
    box.behaviour = lambda _: Answer(202, b'{"id":"abc","status":"starting"}')
    answer = httpx.post(function.url, json={**FLUENCY, "async": True})
    assert (answer.status_code, answer.json()["id"]) == (202, "abc")
    assert box.received[0].headers["Prefer"] == "respond-async"


def test_a_bearer_key_is_sent_when_asked_for(box: Box) -> None:
    """GPU_BACKEND_AUTH=bearer sends the key itself and no signature."""
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_AUTH": "bearer"}
    with edge_function(env) as url:
        assert httpx.post(url, json=FLUENCY).status_code == 200
    assert box.received[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "X-Callme-Signature" not in box.received[0].headers


def test_the_boxs_errors_pass_untouched(function: EdgeFunction, box: Box) -> None:
    """8: status, body, content type and Retry-After of the box's refusals reach the app."""
    body = b'{"error":  {"code":"queue_full","message":"voll"}}\n'
    for status in (401, 404, 422, 429, 500, 503):
        refusal = Answer(status, body, {**JSON, "Retry-After": "7"})
        box.behaviour = partial(lambda answer, _: answer, refusal)
        answer = httpx.post(function.url, json=FLUENCY)
        assert (answer.status_code, answer.content) == (status, body)
        assert answer.headers["Retry-After"] == "7"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>"),
        ("application/json", b"<html>"),
        ("application/json", b""),
        ("application/json", b'{"wpm": NaN}'),
    ],
)
def test_a_success_that_is_no_json_is_502(
    function: EdgeFunction, box: Box, kind: str, body: bytes
) -> None:
    """5: HTML, nothing and NaN with status 200 become a 502 in the one error shape."""
    box.behaviour = lambda _: Answer(200, body, {"Content-Type": kind})
    answer = httpx.post(function.url, json=FLUENCY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "bad_gateway")


def test_an_answer_that_breaks_off_is_502(function: EdgeFunction, box: Box) -> None:
    """A box that dies while it answers is a 502, not half an object with status 200."""
    box.behaviour = lambda _: Answer(body=b'{"a": 1}', send_bytes=4)
    assert httpx.post(function.url, json=FLUENCY).status_code == 502


@pytest.mark.parametrize("status", [200, 500])
def test_a_large_answer_is_streamed_whole(function: EdgeFunction, box: Box, status: int) -> None:
    """12 MiB, more than is held to be checked, arrive to the byte, as success and as error."""
    body = json.dumps({"picture": base64.b64encode(os.urandom(9 << 20)).decode()}).encode()
    box.behaviour = lambda _: Answer(status, body)
    answer = httpx.post(function.url, json=FLUENCY, timeout=240)
    assert answer.status_code == status
    assert answer.content == body


def test_a_compressed_answer_arrives_readable(function: EdgeFunction, box: Box) -> None:
    """What a proxy compresses on the way is decompressed, and not announced as compressed."""
    headers = {**JSON, "Content-Encoding": "gzip"}
    box.behaviour = lambda _: Answer(
        body=gzip.compress(b'{"big": 12345678901234567890}'), headers=headers
    )
    assert httpx.post(function.url, json=FLUENCY).text == '{"big": 12345678901234567890}'


def test_a_closed_port_is_502(deno: Path) -> None:
    """4: a box that is not there is 502, and the answer does not say where it was sought."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses, and nobody else gets it
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with edge_function({"GPU_BACKEND_URL": f"http://{address}"}, deno) as url:
            answer = httpx.post(url, json=FLUENCY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "bad_gateway")
    assert address not in answer.text


def test_a_slow_box_is_504_and_is_told_to_stop(box: Box, deno: Path) -> None:
    """6: past the time-out the app gets 504 and the box sees the connection close."""
    hung_up: list[bool] = []
    done = threading.Event()

    def never(request: Received) -> Answer:
        hung_up.append(request.wait_for_hang_up(HANG_UP_S))
        done.set()
        return Answer()

    box.behaviour = never
    env = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_TIMEOUT_S": "0.5"}
    with edge_function(env, deno) as url:
        answer = httpx.post(url, json=FLUENCY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "gateway_timeout")
        assert done.wait(HANG_UP_S) and hung_up == [True]


def test_a_client_that_leaves_is_passed_on(function: EdgeFunction, box: Box) -> None:
    """7: when the app hangs up, the box sees it at once and can stop working."""
    hung_up: list[bool] = []
    done = threading.Event()

    def wait(request: Received) -> Answer:
        hung_up.append(request.wait_for_hang_up(HANG_UP_S))
        done.set()
        return Answer()

    box.behaviour = wait
    host, port = function.url.removeprefix("http://").split(":")
    body = json.dumps(FLUENCY).encode()
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        assert box.arrived.wait(HANG_UP_S)
    assert done.wait(HANG_UP_S) and hung_up == [True]


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


def test_requests_at_once_do_not_mix(function: EdgeFunction, box: Box) -> None:
    """Twenty requests in flight each get the answer to their own audio."""

    def echo(request: Received) -> Answer:
        digest = hashlib.sha256(request.parts()["audio"].data).hexdigest()
        return Answer(body=json.dumps({"sha256": digest}).encode())

    box.behaviour = echo
    clips = [os.urandom(20_000 + 997 * i) for i in range(20)]

    def digest_of(clip: bytes) -> str:
        body = {"endpoint": "fluency", "audio": data_uri(clip, "audio/wav")}
        return str(httpx.post(function.url, json=body, timeout=240).json()["sha256"])

    with ThreadPoolExecutor(20) as pool:
        digests = list(pool.map(digest_of, clips))
    assert digests == [hashlib.sha256(clip).hexdigest() for clip in clips]
    assert len({request.headers["X-Callme-Nonce"] for request in box.received}) == 20


def test_errors_of_the_contract_over_http(function: EdgeFunction) -> None:
    """The contract's messages arrive with their status, CORS and the one error shape."""
    cases = [
        (b"", 400, "empty body"),
        (b'{"endpoint": "nope"}', 400, "unknown endpoint"),
        (b'{"endpoint": "fluency"}', 400, "missing audio"),
        (b'{"endpoint": "sketch2real"}', 400, "missing image"),
    ]
    for body, status, message in cases:
        answer = httpx.post(function.url, content=body)
        assert (answer.status_code, answer.json()["error"]["message"]) == (status, message)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    answer = httpx.post(function.url, content=b"{")
    assert answer.json()["error"]["message"].startswith("JSON parse fail: ")
    assert httpx.options(function.url).status_code == 204
    assert httpx.get(function.url).status_code == 405


def test_the_log_is_one_json_line_per_request(function: EdgeFunction) -> None:
    """Each request leaves one line with its id, path, status and time; no key, no input."""
    httpx.post(function.url, json=FLUENCY, headers={"X-Request-Id": "web-77"})
    deadline = time.monotonic() + HANG_UP_S
    while not (found := [line for line in function.lines if "web-77" in line]):
        assert time.monotonic() < deadline, function.lines
        time.sleep(0.01)
    entry = json.loads(found[0])
    assert (entry["path"], entry["status"]) == ("/fluency", 200)
    assert entry["ms"] >= 0
    assert KEY not in "\n".join(function.lines)


def test_a_proxys_page_is_an_error_in_json(function: EdgeFunction, box: Box) -> None:
    """HTML for 404, 502, 503 and 504, as a tunnel writes it, becomes the one error shape."""
    expected = {404: 502, 502: 502, 503: 503, 504: 504}
    for status, ours in expected.items():
        page = Answer(status, b"<html>", {"Content-Type": "text/html", "Retry-After": "9"})
        box.behaviour = partial(lambda answer, _: answer, page)
        answer = httpx.post(function.url, json=FLUENCY)
        assert answer.status_code == ours
        assert set(answer.json()["error"]) == {"code", "message"}
        assert answer.headers["Retry-After"] == "9"


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
