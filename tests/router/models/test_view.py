"""A package's view.json: what it may say, and what becomes of one that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from router.models.catalog import read_package
from router.models.schemas import read_description
from router.models.view import ViewError, read_view, wrong_names
from router.settings import CHECKOUT

SCHEMA: dict[str, Any] = {
    "components": {
        "schemas": {
            "Input": {"properties": {"photo": {}, "speech": {}}},
            "Output": {"properties": {"score": {}, "pauses": {}, "picture": {}}},
        }
    }
}
FULL: dict[str, Any] = {
    "about": "Looks.",
    "headline": [{"at": "/score", "unit": "of 100"}],
    "timeline": [{"at": "/pauses"}],
    "compare": {"at": "/picture", "with": "photo"},
    "first": ["photo"],
    "draw": ["photo"],
    "record": ["speech"],
    "hide": ["/pauses"],
}


def written(folder: Path, view: object) -> Path:
    """A package's folder with this view.json."""
    (folder / "cog.yaml").write_text('run: "run.py:Runner"\n')
    (folder / "view.json").write_bytes(view if isinstance(view, bytes) else orjson.dumps(view))
    return folder


def test_what_it_may_say(tmp_path: Path) -> None:
    """Everything arrives; a track's members have the names that most packages use."""
    view = read_view(written(tmp_path, FULL))
    track = {"at": "/pauses", "from": "start", "to": "end"}
    assert view == {**FULL, "timeline": [track]}
    assert wrong_names(view, SCHEMA) == []


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        ({"heading": []}, "unknown field `heading`"),
        ({"headline": [{"at": "/score", "units": ""}]}, "unknown field `units`"),
        ({"headline": [{"label": "x"}]}, "missing required field `at`"),
        ({"first": "photo"}, "Expected `array`, got `str`"),
        (b"{", "truncated"),
        (b"\xff", "malformed|invalid"),
        (b" " * 70_000, "longer than 64 KiB"),
    ],
)
def test_a_wrong_one(
    tmp_path: Path, view: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says why. The package is served all the same, without a view."""
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ViewError, match=reason):
        read_view(written(folder, view))
    assert read_package(folder, {}).view == {}
    assert "view.json cannot be used" in caplog.text


def test_names_that_the_model_lacks() -> None:
    """Each is named: inputs by name, outputs by the first step of a pointer."""
    view = {
        **{"first": ["nothing"], "hide": ["score"], "headline": [{"at": "/scores/0"}]},
        **{"compare": {"at": "/score", "with": "sketch"}},
    }
    assert wrong_names(view, SCHEMA) == [
        "view.json: there is no input 'nothing'",
        "view.json: there is no input 'sketch'",
        "view.json: there is no output 'scores'",
        "view.json: 'score' is no JSON Pointer, such as /score",
    ]


@pytest.mark.parametrize("name", ["fluency", "grounding", "sketch2real"])
def test_the_packages_own(name: str) -> None:
    """Each names only what its model has. Without a schema on disk there is nothing to compare."""
    package = read_package(CHECKOUT / name, {})
    assert package.view
    description = read_description(package)
    if description is None:
        pytest.skip(f"the schema of {name} has not been made since its code changed")
    assert wrong_names(package.view, description.schema) == []
