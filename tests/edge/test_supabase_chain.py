"""From Storage to the row: functions, the real router, a model, webhooks, Storage, Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deno_server import edge_process
from polling import until
from postgres import Database
from router_process import running_router

pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from test_predictions import FUNCTIONS, KEY, A, App, running_app, upload

# A model as sketch2real is one: it prints percentages and previews, and gives files.
RUN = """
import tempfile
import time

from cog import BaseModel, BaseRunner, Input, Path


class Output(BaseModel):
    image: Path
    layers: list[Path]
    seed: int


class Runner(BaseRunner):
    def run(
        self,
        image: Path = Input(description="A sketch"),
        steps: int = Input(description="How many", default=3, ge=0, le=1000),
        step_s: float = Input(description="Seconds for each", default=0.5),
    ) -> Output:
        for step in range(steps):
            print(f"preview: data:image/webp;base64,{'A' * 3000}")
            print(f"{100 * step // steps}%|###", flush=True)
            due = time.monotonic() + step_s
            while time.monotonic() < due:
                time.sleep(0.01)
        folder = Path(tempfile.mkdtemp())
        picture = folder / "picture.png"
        picture.write_bytes(image.read_bytes() * 2)
        layer = folder / "layer.png"
        layer.write_bytes(b"layer")
        return Output(image=picture, layers=[layer], seed=7)
"""


@pytest.fixture
def app(cluster: Database) -> Iterator[App]:
    """The project, its functions, and one user."""
    cluster.clear()
    cluster.run(f"insert into auth.users (id) values ('{A}')")
    with running_app(cluster) as running:
        yield running


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the package `etcher`."""
    folder = tmp_path / "packages" / "etcher"
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(RUN)
    (folder / "cog.yaml").write_text('build:\n  python_version: "3.11"\nrun: "run.py:Runner"\n')
    return folder.parent


def row_of(app: App, prediction: str) -> dict[str, Any]:
    """The row now."""
    return app.project.rows(where=f"id = '{prediction}'")[0]


def at_box(app: App, url: str, **env: str) -> Any:
    """The function `predictions` in a fresh process, with another address of the box."""
    secrets = {"CALLME_WEBHOOK_SECRET": env["secret"], "GPU_BACKEND_URL": url}
    keys = {"GPU_BACKEND_KEY": KEY, "GPU_BACKEND_KEY_ID": "web"}
    hook = {"CALLME_FUNCTIONS_URL": env["hook"]}
    everything = {**app.project.env(), **secrets, **keys, **hook}
    return edge_process(everything, folder=FUNCTIONS / "predictions")


@pytest.mark.timeout(300)
def test_the_whole_chain_through_a_kill_and_an_outage(
    app: App, packages: Path, tmp_path: Path
) -> None:
    """A sketch becomes a picture in Storage, with progress on the way. The box is killed in the
    middle and comes back at another address; the database is away when the result comes."""
    state = tmp_path / "state"
    sketch = upload(app, "sketch.png", b"sketch" * 1000)
    with running_router(packages, state, f"web:{KEY}") as first:
        secret = (state / "webhook_secret").read_text().strip()
        hook = edge_process(
            {**app.project.env(), "CALLME_WEBHOOK_SECRET": secret},
            folder=FUNCTIONS / "prediction_webhook",
        )
        with hook as webhook, at_box(app, first.url, secret=secret, hook=webhook.url) as function:
            app.predictions = function
            row = app.run("etcher", input={"image": sketch, "steps": 9, "step_s": 0.3})
            halfway = until(lambda: (r := row_of(app, row["id"]))["progress"] and r)
            assert halfway["status"] == "processing"
            assert "preview: data:image/webp;base64,AAAA" in halfway["log_tail"]
            refused = app.run("etcher", input={"image": sketch, "steps": "many"})
            assert (refused["status"], refused["error_code"]) == ("failed", "invalid_input")
            assert refused["error"].startswith("steps: ")
            first.kill()
        with (
            edge_process(
                {**app.project.env(), "CALLME_WEBHOOK_SECRET": secret, "PORT": _port(webhook.url)},
                folder=FUNCTIONS / "prediction_webhook",
            ),
            running_router(packages, state, f"web:{KEY}") as second,
            at_box(app, second.url, secret=secret, hook=webhook.url) as function,
        ):
            app.predictions = function
            until(lambda: any("etcher" in line for line in second.log.read_text().splitlines()))
            app.project.down = True
            requests = len(app.project.requests)
            until(lambda: len(app.project.requests) >= requests + 2)
            app.project.down = False
            done = until(lambda: (r := row_of(app, row["id"]))["status"] == "succeeded" and r)
            later = app.run("etcher", input={"image": done["output"]["image"], "steps": 0})
            again = until(lambda: (r := row_of(app, later["id"]))["status"] == "succeeded" and r)
    folder = f"callme-outputs/{A}"
    assert done["output"] == {
        "image": f"storage://{folder}/{row['id']}/output-image.png",
        "layers": [f"storage://{folder}/{row['id']}/output-layers-0.png"],
        "seed": 7,
    }
    names = {name: content for (_, name), (_, content) in app.project.files.items()}
    assert names[f"{A}/{row['id']}/output-image.png"] == b"sketch" * 2000
    assert names[f"{A}/{row['id']}/output-layers-0.png"] == b"layer"
    # An output is an input of the next run.
    assert names[f"{A}/{again['id']}/output-image.png"] == b"sketch" * 4000
    assert done["metrics"]["predict_time"] > 0
    assert done["started_at"] > halfway["started_at"], "it began again after the kill"


def _port(url: str) -> str:
    return url.rsplit(":", 1)[1]
