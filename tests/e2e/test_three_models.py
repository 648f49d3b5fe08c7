"""`callme up`, as a newcomer sees it: three lines to copy, three answers, bad input refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.page_pixels import check_boxes, check_comparison, check_timeline
from tests.e2e.page_visits import visit
from tests.e2e.service import ROOT, Service, running_service
from tests.edge.deno_server import edge_function
from tests.waiting import wait_until

TRANSCRIPT = (
    "and mister john dashwood had then leisure to consider how much there might be "
    "prudently in his power to do for them"
)
EMPTY_WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=")
KEY = "an-e2e-key-of-32-characters-long"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`callme up` on the checkout, with every model loaded."""
    state = tmp_path_factory.mktemp("up") / "state"
    argv = [sys.executable, "-m", "router.cli", "up"]
    with running_service(ROOT, state, {"CALLME_WEIGHTS": "demo"}, argv) as running:
        wait_until(lambda: "Stop: Ctrl-C" in running.log(), 600)
        yield running


def data_uri(path: Path, mime: str) -> str:
    """The file as the web app sends it."""
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def words(text: str) -> list[str]:
    """Lower-case words, with the one abbreviation of the clip written out."""
    return re.findall(r"[a-z']+", text.lower().replace("mr.", "mister"))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes: a decompression bomb's first page."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (width + 1) * height, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_the_three_lines_work_as_they_stand(service: Service, tmp_path: Path) -> None:
    """Each printed curl line stands in the README and, run in a shell from the checkout, answers
    200 with JSON; a picture is written to a file."""
    lines = re.findall(r"^\s+(curl .*)$", service.log(), re.M)
    assert len(lines) == 3, service.log()
    readme = (ROOT / "README.md").read_text().splitlines()
    assert {line.replace(service.url, "http://127.0.0.1:7777") for line in lines} <= set(readme)
    # From a folder that looks like the checkout: one line writes files.
    for name in (".venv", "fluency", "grounding", "sketch2real"):
        (tmp_path / name).symlink_to(ROOT / name)
    answers = {}
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line.replace('-sS', '-sS --fail')}"],
            cwd=tmp_path,
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        answers[line.split()[2].rsplit("/", 1)[-1]] = json.loads(done.stdout)
    assert words(answers["fluency"]["transcript"]) == TRANSCRIPT.split()
    assert answers["fluency"]["speech_detected"] is True
    labels = {d["label"] for d in answers["grounding"]["detections"]}
    assert labels == {"cup", "table"}
    picture = tmp_path / answers["sketch2real"]["image"]
    assert picture.name == "output-image.webp"
    Image.open(picture).verify()


def test_a_wav_without_samples_is_an_answer(service: Service) -> None:
    """The app's own check: 200 and no speech, never NaN."""
    answer = service.http.post("/fluency", files={"audio": ("a.wav", EMPTY_WAV, "audio/wav")})
    assert answer.status_code == 200, answer.text
    assert answer.json()["speech_detected"] is False
    assert "NaN" not in answer.text


SKETCH = ROOT / "sketch2real" / "samples" / "sketch.png"
BAD: list[tuple[str, dict[str, Any]]] = [
    ("/fluency", {"audio": ("a.wav", b"this is not audio, it only says so", "audio/wav")}),
    ("/fluency", {"audio": ("a.wav", b"", "audio/wav")}),
    ("/fluency", {"language": (None, "en")}),
    ("/grounding", {"image": ("a.png", b"a text file named .png", "image/png")}),
    ("/grounding", {"image": ("a.png", b"", "image/png")}),
    ("/grounding", {"image": ("a.png", png_header(10_000, 6_000), "image/png")}),
    ("/grounding", {"image": ("a.png", SKETCH.read_bytes()), "box_threshold": (None, "abc")}),
    ("/grounding", {"text_queries": (None, "a cat")}),
    ("/sketch2real", {"image": ("a.png", b"a text file named .png", "image/png")}),
    ("/sketch2real", {"image": ("a.png", b"", "image/png")}),
    ("/sketch2real", {"image": ("a.png", png_header(10_000, 6_000), "image/png")}),
    ("/sketch2real", {"image": ("a.png", SKETCH.read_bytes()[:200], "image/png")}),
    ("/nosuch", {"image": ("a.png", b"x", "image/png")}),
]


@pytest.mark.parametrize(("path", "parts"), BAD)
def test_bad_input(service: Service, path: str, parts: dict[str, Any]) -> None:
    """A 4xx in the one shape, no path in it, and nothing left in the spool."""
    answer = service.http.post(path, files=parts)
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert error["code"] in ("invalid_input", "unknown_model")
    assert error["message"]
    assert str(service.state) not in answer.text
    assert service.spooled() == []

    def leftovers() -> list[Path]:
        return [p for p in (service.state / "tmp").glob("*/*") if p.suffix in (".png", ".wav")]

    wait_until(lambda: not leftovers())  # removed at the latest when the model is at rest


def test_from_the_edge_function_to_the_models(service: Service) -> None:
    """Deno function → router → coglet → real results, for all three, the empty WAV word for
    word as the app's check sends it."""
    with edge_function({"GPU_BACKEND_URL": service.url}) as url:
        empty = (
            '{"endpoint":"fluency","audio":"data:audio/wav;base64,'
            'UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="}'
        )
        done = subprocess.run(
            [
                "curl",
                "-sS",
                "-i",
                "-X",
                "POST",
                url,
                "-H",
                "Content-Type: application/json",
                "-d",
                empty,
            ],
            capture_output=True,
            timeout=240,
            check=True,
        )
        head, _, body = done.stdout.decode().partition("\r\n\r\n")
        assert " 200 " in head.splitlines()[0] + " ", done.stdout
        assert "access-control-allow-origin: *" in head.lower()
        assert json.loads(body)["speech_detected"] is False

        speech = data_uri(ROOT / "fluency" / "samples" / "speech.wav", "audio/wav")
        heard = service.http.post(url, json={"endpoint": "fluency", "audio": speech})
        assert heard.status_code == 200, heard.text
        assert words(heard.json()["transcript"]) == TRANSCRIPT.split()

        coffee = data_uri(ROOT / "grounding" / "samples" / "coffee.jpg", "image/jpeg")
        found = service.http.post(
            url,
            json={
                "endpoint": "grounding",
                "image": coffee,
                "text_queries": "cup, table",
                "box_threshold": 0.35,
            },
        )
        assert found.status_code == 200, found.text
        assert {d["label"] for d in found.json()["detections"]} == {"cup", "table"}

        sketch = data_uri(SKETCH, "image/png")
        drawn = service.http.post(url, json={"endpoint": "sketch2real", "image": sketch, "seed": 7})
        assert drawn.status_code == 200, drawn.text[:500]
        assert drawn.json()["seed"] == 7

        broken = service.http.post(
            url, json={"endpoint": "grounding", "image": coffee, "box_threshold": "abc"}
        )
        assert broken.status_code == 422
        assert broken.json()["error"]["code"] == "invalid_input"


# A boat: hull, mast, sail. Shares of the board's width and height.
STROKES = [
    [(0.2, 0.6), (0.3, 0.75), (0.7, 0.75), (0.8, 0.6), (0.2, 0.6)],
    [(0.5, 0.6), (0.5, 0.15)],
    [(0.5, 0.15), (0.75, 0.55), (0.5, 0.55)],
]


@pytest.mark.timeout(600)
def test_on_the_page(service: Service, tmp_path: Path) -> None:
    """In Chromium: speak, choose a photo, draw. The waveform with its intervals, the boxes on the
    photo and the picture beside the drawing are there, pixel by pixel; axe-core finds nothing, and
    a phone need not scroll sideways."""
    speech = ROOT / "fluency" / "samples" / "speech.wav"
    photo = ROOT / "grounding" / "samples" / "coffee.jpg"
    with wave.open(str(speech)) as spoken:
        spoken_s = spoken.getnframes() / spoken.getframerate()
    saw = visit(
        *(service.url, tmp_path / "visit", "packages"),
        limit_s=560,
        limitMs=280_000,
        speech=str(speech),
        spokenS=int(spoken_s) + 2,
        photo=str(photo),
        strokes=STROKES,
        pictures=str(tmp_path),
    )
    seen = saw["result"]
    outputs = {}
    for model, shown in seen.items():
        assert (shown["state"], shown["axe"], shown["phone"]) == ("succeeded", [], 0), model
        answer = service.http.get(f"/predictions/{shown['address'].rsplit('/', 1)[1]}")
        outputs[model] = answer.json()["output"]
    heard = words(outputs["fluency"]["transcript"])
    assert "leisure to consider how much there might be" in " ".join(heard)
    assert seen["fluency"]["headline"][0] == f"{outputs['fluency']['fluency_score']:g} of 100"
    check_timeline(tmp_path / "timeline.png", seen["fluency"]["drawn"], outputs["fluency"])
    check_boxes(tmp_path / "boxes.png", seen["grounding"], outputs["grounding"], photo)
    picture = base64.b64decode(outputs["sketch2real"]["image"].partition(",")[2])
    check_comparison(tmp_path, seen["sketch2real"]["cut"], STROKES, picture)
    assert seen["sketch2real"]["previews"] >= 1
    assert saw["complaints"] == []


def test_signed_requests_through_the_edge_function(echo_packages: Path, tmp_path: Path) -> None:
    """With a key on both sides the function signs and the router verifies; other keys, and
    requests without one, are refused."""
    env = {"CALLME_KEYS": f"edge:{KEY}"}
    with running_service(echo_packages, tmp_path / "state", env) as service:
        backend = {"GPU_BACKEND_URL": service.url, "GPU_BACKEND_ENDPOINTS": "echo"}
        request = {"endpoint": "echo", "text": "signed"}
        with edge_function({**backend, "GPU_BACKEND_KEY": KEY}) as url:
            answer = service.http.post(url, json=request)
            assert answer.status_code == 200, answer.text
            assert answer.json()["text"] == "signed"
        with edge_function(
            {**backend, "GPU_BACKEND_KEY": KEY, "GPU_BACKEND_AUTH": "bearer"}
        ) as url:
            assert service.http.post(url, json=request).status_code == 200
        with edge_function({**backend, "GPU_BACKEND_KEY": "another-key"}) as url:
            assert service.http.post(url, json=request).status_code == 401
        with edge_function(backend) as url:
            assert service.http.post(url, json=request).status_code == 401
        assert service.http.get("/health").status_code == 200
        assert service.http.get("/status").status_code == 401


def test_a_large_file_goes_through_the_edge_function_in_pieces(
    echo_packages: Path, tmp_path: Path
) -> None:
    """10 MiB reach the model to the byte, signed and chunked; with another key the function
    hands on the router's 401, which comes before the file has been sent."""
    clip = os.urandom(10 << 20)
    uri = f"data:application/octet-stream;base64,{base64.b64encode(clip).decode()}"
    request = {"endpoint": "echo", "file": uri}
    with running_service(echo_packages, tmp_path / "state", {"CALLME_KEYS": f"edge:{KEY}"}) as box:
        backend = {"GPU_BACKEND_URL": box.url, "GPU_BACKEND_ENDPOINTS": "echo"}
        with edge_function({**backend, "GPU_BACKEND_KEY": KEY}) as url:
            answer = box.http.post(url, json=request)
            assert answer.status_code == 200, answer.text
            assert answer.json()["file_sha256"] == hashlib.sha256(clip).hexdigest()
        with edge_function({**backend, "GPU_BACKEND_KEY": "another-key"}) as url:
            answer = box.http.post(url, json=request)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_ctrl_c_after_up(service: Service) -> None:
    """Ctrl-C ends `callme up` and all three models. Last in this file: it stops the service."""
    service.stop()
    assert "Nothing is left running" in service.log()
