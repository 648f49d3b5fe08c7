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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from box import JSON, Answer, Box, Received
from deno_server import ROOT, EdgeFunction, edge_function
from function_requests import (
    FLUENCY,
    HANG_UP_S,
    KEY,
    WAV,
    assert_signed,
    data_uri,
    string_to_sign,
    verifier,
)

VECTORS = Path(__file__).with_name("signature_vectors.json")


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
