"""The package, copied alone, under the real coglet server with the demo weights."""

import base64
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import condition
import numpy as np
import pipeline
import pytest
import sketch
import strokes
import torch
import weights
from cog_server import Server, data_uri, serve
from picture import load_rgb
from PIL import Image
from request import Request
from scipy import ndimage

SKETCH = "samples/sketch.png"


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server, shared by this module's tests."""
    with serve(package, tmp_path_factory.mktemp("coglet"), WEIGHTS="demo") as running:
        yield running


def picture_of(uri: str) -> tuple[str, Image.Image]:
    head, _, body = uri.partition(",")
    return head, Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")


def painted(server: Server, package: Path, **inputs: Any) -> dict[str, Any]:
    status, answer = server.predict(image=data_uri(package / SKETCH), **inputs)
    assert (status, answer["status"]) == (200, "succeeded"), answer
    return dict(answer["output"])


def test_sketch_alone_becomes_a_picture(server: Server, package: Path) -> None:
    """The app sends nothing but the sketch and gets a colourful picture that follows its lines."""
    output = painted(server, package, seed=7)
    head, picture = picture_of(output["image"])
    assert head == "data:image/webp;base64"
    assert picture.size == (512, 512)
    assert output["seed"] == 7
    assert output["prompt_used"] == ""
    assert output["flagged"] is None
    assert output["images"] == [output["image"]]
    assert all(seconds >= 0 for seconds in output["timings"].values())
    pixels = np.asarray(picture, dtype=float)
    sky, grass = pixels[20:120, 20:120].mean((0, 1)), pixels[460:, 20:200].mean((0, 1))
    assert sky[2] > sky[0] + 30, f"the sky should be blue, got {sky}"
    assert grass[1] > grass[2] + 30, f"the grass should be green, got {grass}"
    lines = np.asarray(picture_of(output["control_image"])[1])[..., 0] > 127
    smooth = ndimage.gaussian_filter(pixels, (4, 4, 0))
    slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)).max(axis=2)
    near = ndimage.binary_dilation(lines, iterations=6)
    assert slope[near].mean() > 2 * slope[~near].mean()


def test_same_seed_same_picture(server: Server, package: Path) -> None:
    """A seed gives one picture, alone or as the second of two; another seed another picture."""
    two = painted(server, package, seed=7, num_outputs=2, output_format="png")
    alone = painted(server, package, seed=8, output_format="png")
    assert len(two["images"]) == 2
    assert two["images"][1] == alone["image"]
    assert two["images"][0] != alone["image"]


@pytest.mark.parametrize(("kind", "mime"), [("jpeg", "jpeg"), ("png", "png"), ("webp", "webp")])
def test_size_and_format_are_as_asked(server: Server, package: Path, kind: str, mime: str) -> None:
    """Width and height are rounded to multiples of 64; picture and lines have the same size."""
    output = painted(server, package, seed=7, steps=1, width=500, height=320, output_format=kind)
    head, picture = picture_of(output["image"])
    assert head == f"data:image/{mime};base64"
    assert picture.size == picture_of(output["control_image"])[1].size == (512, 320)


def test_same_seed_same_picture_in_another_process(server: Server, package: Path) -> None:
    """A seed outlives the process: loaded again elsewhere, the model paints the same pixels."""
    output = painted(server, package, seed=7, output_format="png", width=128, height=128)
    preset = weights.choose("demo", 0.0, has_bfloat16=False)
    painter = pipeline.load(preset, "cpu", torch.float32, 0.0)
    lines = strokes.centrelines(sketch.find_ink(load_rgb(package / SKETCH, max_side_px=1280)).mask)
    plan = condition.make_plan(lines, 128, 128, areas=preset.areas_px, multiple=preset.multiple_px)
    request = Request(
        control=condition.draw(lines, plan, pen=preset.pen, hard=preset.hard_lines),
        prompt="",
        negative_prompt=None,
        control_scale=preset.control_scale,
        steps=preset.steps,
        guidance_scale=preset.guidance_scale,
        seeds=(7,),
    )
    here = np.asarray(painter.paint([request], lambda _step: None)[0])
    assert (np.asarray(picture_of(output["image"])[1]) == here).all()


def test_drawn_seed_is_returned(server: Server, package: Path) -> None:
    """A request without a seed can be repeated from its answer."""
    first = painted(server, package, steps=1)
    assert painted(server, package, steps=1, seed=first["seed"])["image"] == first["image"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"a text renamed", "something else"),
        (Path("samples/sketch.png"), "cut-off"),
    ],
)
def test_bad_file_is_the_senders_error(
    server: Server, package: Path, tmp_path: Path, content: bytes | Path, words: str
) -> None:
    """A file that is no picture fails with InvalidInput, leaves nothing behind, and is survived."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(
        (package / content).read_bytes()[:9000] if isinstance(content, Path) else content
    )
    before = set(server.temp.rglob("sketch2real-*"))
    status, answer = server.predict(image=str(bad))
    assert (status, answer["status"]) == (200, "failed")
    assert "InvalidInput: Cannot" in answer["error"]
    assert words in answer["error"]
    assert str(tmp_path) not in answer["error"]
    assert set(server.temp.rglob("sketch2real-*")) == before
    painted(server, package, seed=1, steps=1)


@pytest.mark.parametrize(
    "inputs",
    [
        {"steps": 51}, {"steps": 0}, {"num_outputs": 5}, {"output_format": "svg"}, {"seed": -1},
        {"seed": 2**32}, {"width": 127}, {"height": 2049}, {"guidance": 0}, {"strength": 2.1},
        {"strength": "1e400"}, {"prompt": "x" * 1001}, {"negative_prompt": "x" * 1001},
    ],
)  # fmt: skip
def test_limits_are_in_the_schema(server: Server, package: Path, inputs: dict[str, Any]) -> None:
    """What lies outside the documented ranges is refused before the model is asked."""
    status, _ = server.predict(image=data_uri(package / SKETCH), **inputs)
    assert status == 422


def test_cancel_in_mid_run_stops_within_one_step(server: Server, package: Path) -> None:
    """Cancelled after its first steps, a long prediction ends, and so does its painting.

    200 steps are asked for. What the painter has done when the next one is served shows in the next
    one's own time: it waits for at most the step that was under way.
    """
    usual = painted(server, package, seed=1, steps=2)["timings"]["paint_s"]
    answers: list[dict[str, Any]] = []
    body = {"id": "long", "input": {"image": str(package / SKETCH), "steps": 50, "num_outputs": 4}}
    thread = threading.Thread(target=lambda: answers.append(server.post("/predictions", body)[1]))
    already = server.said("painting: ")
    thread.start()
    deadline = time.monotonic() + 240
    while server.said("painting: ") == already and time.monotonic() < deadline:
        time.sleep(0.01)
    status, _ = server.post("/predictions/long/cancel", {})
    assert status == 200
    thread.join(timeout=240)
    assert answers[0]["status"] == "canceled", answers
    steps = server.said("(1/200 steps)"), server.said("(200/200 steps)")
    assert steps == (1, 0)
    after = painted(server, package, seed=1, steps=2)["timings"]["paint_s"]
    assert after < 20 * usual  # 200 steps take a hundred times as long


def test_several_at_once_get_their_own(server: Server, package: Path) -> None:
    """Four predictions at the same time: each has its seed's picture and its own log."""
    seeds = (1, 2, 3, 4)
    alone = {seed: painted(server, package, seed=seed, steps=2)["image"] for seed in seeds}
    answers: dict[int, tuple[int, dict[str, Any]]] = {}

    def ask(seed: int) -> None:
        uri = data_uri(package / SKETCH)
        answers[seed] = server.predict(image=uri, seed=seed, steps=2)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    for seed in seeds:
        status, answer = answers[seed]
        assert (status, answer["status"]) == (200, "succeeded"), answer
        assert answer["output"]["image"] == alone[seed]
        percents = [line for line in answer["logs"].splitlines() if line.startswith("painting")]
        assert percents == ["painting: 50 % (1/2 steps)", "painting: 100 % (2/2 steps)"]


def test_progress_rises_to_the_end(server: Server, package: Path) -> None:
    """The logs tell the percentage, never falling, over all pictures."""
    status, answer = server.predict(
        image=data_uri(package / SKETCH), seed=1, steps=3, num_outputs=2
    )
    assert status == 200
    assert "preview" not in answer["logs"]
    lines = [line for line in answer["logs"].splitlines() if line.startswith("painting: ")]
    percent = [int(line.split()[1]) for line in lines]
    assert percent == sorted(percent)
    assert len(percent) == 6
    assert percent[-1] == 100


def test_the_picture_is_seen_emerging(server: Server, package: Path) -> None:
    """Asked for, previews are lines of the log: small, and nearer to the picture in the end."""
    status, answer = server.predict(
        image=data_uri(package / SKETCH), seed=7, steps=8, previews=True
    )
    assert status == 200
    lines = [line for line in answer["logs"].splitlines() if line.startswith("preview: ")]
    assert len(lines) == 6  # not after the first step, which has nothing to compare, nor the last
    assert all(len(line) < 8000 for line in lines)
    final = np.asarray(picture_of(answer["output"]["image"])[1].resize((128, 128)), float)
    off = [
        np.abs(np.asarray(picture_of(line.split()[1])[1].resize((128, 128)), float) - final).mean()
        for line in lines
    ]
    assert off[-1] < 0.8 * off[0]
