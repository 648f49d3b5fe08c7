"""Each package, alone: its own requirements in a fresh environment, its folder and nothing else."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from tests.packaging.isolated import (
    ROOT,
    Image,
    Server,
    StepError,
    build,
    cog_image,
    example,
    serving,
    step,
)

PACKAGES = sorted(p.parent for p in ROOT.glob("*/cog.yaml"))


@pytest.fixture(scope="module", params=PACKAGES, ids=lambda p: p.name)
def image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Image]:
    """The package, built; 40,000 files that are removed at once afterwards."""
    package: Path = request.param
    scratch = tmp_path_factory.mktemp(f"{package.name}-image")
    yield build(package, scratch)
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def server(image: Image) -> Iterator[Server]:
    """Cog's server in it, on the demo weights."""
    with serving(image, "run.py:Runner", {"WEIGHTS": "demo"}) as server:
        yield server


def package_of(image: Image) -> str:
    """Its name, which the copy's path does not show."""
    return image.folder.parent.name.partition("-image")[0]


def example_of(image: Image) -> dict[str, Any]:
    """The package's example, which the image does not hold."""
    return example(ROOT / package_of(image))


def test_nothing_else_is_on_the_path(image: Image) -> None:
    """Standard library, the environment, the folder; neither the router nor another package."""
    script = (
        "import json, sys, importlib.util as u;"
        f"others = {[p.name for p in PACKAGES] + ['router', 'api', 'tests']!r};"
        "print(json.dumps([sys.path, [o for o in others if u.find_spec(o)]]))"
    )
    printed = step("look at the path", [image.python, "-c", script], image.env, image.folder)
    path, others = json.loads(printed)
    assert others == []
    assert not [p for p in path if p.startswith(str(ROOT))]


def test_the_environment_is_consistent(image: Image) -> None:
    """torch is the pinned one, and nothing drags in torchvision or timm."""
    script = (
        "from importlib.metadata import distributions as d; print(*{x.name.lower() for x in d()})"
    )
    names = set(step("list it", [image.python, "-c", script], image.env, image.folder).split())
    assert {"cog", "coglet", "torch"} <= names
    assert not names & {"torchvision", "torchaudio", "timm", "pip"}


def test_what_is_read_from_the_source_is_what_the_runner_says(image: Image) -> None:
    """Modal and the container recipe are told the concurrency without importing the runner;
    here, without a GPU, a runner may say that it takes one at a time after all."""
    parts = cog_image.read_image_parts(image.folder)
    assert image.max_concurrency in (1, parts.concurrency)


def test_it_predicts(image: Image, server: Server) -> None:
    """The example that ships with it has the answer that it should have."""
    answer = server.predict(**example_of(image))
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "succeeded"), server.last_words()
    CHECKS[package_of(image)](body["output"])


def test_it_validates(image: Image, server: Server) -> None:
    """Cog's server has the schema: what is missing or of the wrong type is 422 with its name."""
    required = next(k for k, v in example_of(image).items() if str(v).startswith("data:"))
    answer = server.predict()
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", "input", required]
    described = server.http.get("/openapi.json").json()["components"]["schemas"]["Input"]
    assert required in described["required"]


def test_grounding_also_loads_a_checkpoint(image: Image) -> None:
    """The path of the full weights, in the same environment: a folder of save_pretrained."""
    if package_of(image) != "grounding":
        pytest.skip("grounding's weights")
    folder = ROOT / "grounding"
    shapes = (folder / "samples" / "shapes.png").read_bytes()
    with serving(image, "run.py:Runner", {"WEIGHTS": str(folder / "weights" / "drawn")}) as server:
        answer = server.predict(
            image=f"data:image/png;base64,{base64.b64encode(shapes).decode()}",
            text_queries="red circle, blue square",
        )
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "succeeded"), server.last_words()
    assert {d["label"] for d in body["output"]["detections"]} == {"red circle", "blue square"}


def check_fluency(output: dict[str, Any]) -> None:
    """Somebody speaks, and words are heard."""
    assert output["speech_detected"] is True
    assert output["transcript"].strip()
    assert 0 <= output["fluency_score"] <= 100


def check_grounding(output: dict[str, Any]) -> None:
    """Both things in the sample are found."""
    labels = {d["label"] for d in output["detections"]}
    assert labels == {"cup", "table"}


def check_sketch2real(output: dict[str, Any]) -> None:
    """A picture with colours in it."""
    head, _, text = output["image"].partition(",")
    assert head.startswith("data:image/")
    picture = Picture.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    assert len(picture.getcolors(maxcolors=1 << 24) or []) > 100


CHECKS = {
    "fluency": check_fluency,
    "grounding": check_grounding,
    "sketch2real": check_sketch2real,
}


def test_every_package_is_checked() -> None:
    """A package that is added needs a line here."""
    assert set(CHECKS) == {p.name for p in PACKAGES}


@pytest.mark.parametrize(
    ("requirement", "named"),
    [
        ("numpy==0.0.0.404", "install requirements.txt"),
        ("cog==0.23.1", "read the runner's schema"),
    ],
)
def test_a_step_that_fails_is_named(tmp_path: Path, requirement: str, named: str) -> None:
    """A version that does not exist; a library that the runner imports and nothing installs."""
    package = tmp_path / "package"
    package.mkdir()
    source = ROOT / "tests" / "packages" / "echo"
    shutil.copy(source / "cog.yaml", package)
    (package / "run.py").write_text(f"import PIL\n{(source / 'run.py').read_text()}")
    (package / "requirements.txt").write_text(f"{requirement}\n")
    with pytest.raises(StepError, match=f"step '{named}'"):
        build(package, tmp_path / "image")
