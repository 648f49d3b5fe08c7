"""docs/examples/web-app.html in a real Chromium, behind the real router.

The models are small ones with the names and inputs of the real ones, which take a hundred seconds
of processor here. With CALLME_REAL_MODELS=1 the same test runs with the real ones.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cold_function import cold_function
from example_page import CDN, Quiet, serving
from polling import until
from postgres import Database
from router_process import running_router

pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from supabase_project import running_project
from test_predictions import FUNCTIONS, KEY
from web_app_site import (
    HISTORY,
    IS_REAL,
    LIMIT_S,
    OFFLINE,
    PAGE,
    REFUSED,
    SESSION,
    browsing,
    check_results,
    make_site,
    packages_in,
    page_of,
    unreliable,
)

public_box: Any = importlib.import_module("tests.e2e.public_box")


@dataclass
class Internet:
    """A tunnel's stand-in and the platform to which `callme up --public` publishes its address."""

    cloudflared: Any
    platform: Any

    def env(self) -> dict[str, str]:
        """For the next `callme up --public`, whose tunnel gets a new address."""
        self.cloudflared.open_on_localhost()
        return {
            "PATH": f"{self.cloudflared.program.parent}:{os.environ['PATH']}",
            "SSL_CERT_FILE": str(self.cloudflared.certificate_authority),
            "SUPABASE_PROJECT_ID": public_box.PROJECT,
            "SUPABASE_ACCESS_TOKEN": public_box.TOKEN,
            "CALLME_SUPABASE_API_URL": self.platform.url,
        }

    def address(self) -> str | None:
        """Where the functions are to find the box."""
        found: str | None = self.platform.secrets.get("GPU_BACKEND_URL")
        return found


@contextmanager
def running_internet(folder: Path) -> Iterator[Internet]:
    """Both of them."""
    with public_box.running_platform() as platform:
        yield Internet(public_box.make_cloudflared(folder), platform)


@pytest.mark.timeout(2 * LIMIT_S)
def test_three_models_end_on_the_page_although_the_box_is_killed(
    cluster: Database, tmp_path: Path
) -> None:
    """A drawing, a recording and a photo go to Storage and become results on the page, which was
    loaded again in the middle. The box is killed and comes back behind another tunnel; a run that
    was begun meanwhile is done too. Both functions are cold, and started again when the address
    changes. Webhooks come late, twice and out of order."""
    cluster.clear()
    cluster.run("update callme.settings set anonymous_running = 4")
    state, site = tmp_path / "state", tmp_path / "site"
    told: list[tuple[str, str]] = []
    packages = packages_in(tmp_path / "packages")
    with (
        running_project(cluster) as project,
        running_internet(tmp_path / "cloudflared") as internet,
        running_router(packages, state, f"web:{KEY}", internet.env(), public=True) as first,
    ):
        before = until(internet.address, LIMIT_S)  # the models are known by then
        make_site(site, project.url)
        authority = str(internet.cloudflared.certificate_authority)

        def secrets() -> dict[str, str]:
            own = {**internet.platform.secrets, "DENO_CERT": authority}
            return {**project.env(), **own, "CALLME_FUNCTIONS_URL": hook}

        with (
            cold_function(FUNCTIONS / "prediction_webhook", secrets) as webhook,
            serving(unreliable(webhook, told)) as hook,
            cold_function(FUNCTIONS / "predictions", secrets) as predictions,
            serving(functools.partial(Quiet, directory=str(site))) as page,
        ):
            project.functions["predictions"] = predictions
            with browsing(page, tmp_path) as browser:
                until(lambda: len(project.rows(where="sent_at is not null")) == 3, LIMIT_S)
                first.kill()
                (tmp_path / "away").touch()
                (unsent,) = until(lambda: project.rows(where="sent_at is null"), LIMIT_S)
                until(lambda: any("bad_gateway" in s for s in predictions.boots[0].lines))
                with running_router(packages, state, f"web:{KEY}", internet.env(), public=True):
                    out, complaints = browser.communicate(timeout=LIMIT_S)
    assert browser.returncode == 0, complaints
    report = json.loads(out.splitlines()[-1])
    check_results(report["seen"])
    assert report["complaints"] == []
    assert internet.address() != before
    # The real models may still be starting when the box is killed, which has then reported nothing.
    webhook_boots = (1, 2) if IS_REAL else (2,)
    assert len(predictions.boots) == 2
    assert len(webhook.boots) in webhook_boots
    assert {unsent["id"], *(name for name, _ in told)} == {row["id"] for row in project.rows()}
    assert {row["status"] for row in project.rows()} == {"succeeded"}


@pytest.mark.timeout(2 * LIMIT_S)
def test_one_bad_run_does_not_hide_the_others(tmp_path: Path) -> None:
    """A picture that is gone leaves its card with the reason; a lost connection fails no run."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(page_of("http://127.0.0.1:9"))
    (site / "supabase.js").write_text(f"window.supabase = {{ createClient: () => ({SESSION}) }};")
    (site / "callme.js").write_text(HISTORY)
    with (
        serving(functools.partial(Quiet, directory=str(site))) as url,
        browsing(url, tmp_path, "web_app_history.mjs") as browser,
    ):
        out, complaints = browser.communicate(timeout=LIMIT_S)
    assert browser.returncode == 0, complaints
    seen = json.loads(out.splitlines()[-1])
    cards = seen["cards"]
    assert set(cards) == {"plain", "running", "fails", "gone"}
    assert cards["plain"][0] == "succeeded"
    assert cards["gone"][0] == "succeeded"
    assert "Object not found" in cards["gone"][1]
    assert '"seed": 7' in cards["gone"][1]
    assert cards["running"] == ["processing", ""]
    assert cards["fails"] == ["failed", "No memory"]
    assert seen["complaint"] == OFFLINE


@pytest.mark.timeout(2 * LIMIT_S)
def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """A page that is not set up, is offline, lacks the client or has a wrong key says so in plain
    words; where nothing can work, nothing can be pressed."""
    site, url = tmp_path / "site", "http://127.0.0.1:9"
    (site / "alone").mkdir(parents=True)
    (site / "callme.js").write_text(HISTORY)
    (site / "unset.html").write_text(PAGE.read_text().replace(CDN, "supabase.js"))
    (site / "offline.html").write_text(page_of(url, "nothing.js"))
    (site / "alone" / "index.html").write_text(page_of(url, "../supabase.js"))
    (site / "supabase.js").write_text("window.supabase = {};")
    for name, message, status in (("key", "Invalid API key", 401), ("away", "Failed to fetch", 0)):
        said = REFUSED.replace("MESSAGE", json.dumps(message)).replace("STATUS", str(status))
        (site / f"{name}.js").write_text(said)
        (site / f"{name}.html").write_text(page_of(url, f"{name}.js"))
    with (
        serving(functools.partial(Quiet, directory=str(site))) as served,
        browsing(served, tmp_path, "web_app_notice.mjs") as browser,
    ):
        out, complaints = browser.communicate(timeout=LIMIT_S)
    assert browser.returncode == 0, complaints
    seen = json.loads(out.splitlines()[-1])
    assert seen.pop("key")["said"].endswith("Check PUBLISHABLE_KEY.")
    assert seen.pop("away")["said"] == OFFLINE
    assert "set SUPABASE_URL and PUBLISHABLE_KEY" in seen["unset"]["said"]
    assert "supabase-js could not be loaded" in seen["offline"]["said"]
    assert "deno bundle supabase/client/callme.ts" in seen["alone/index"]["said"]
    assert [(s["disabled"], s["sideways"]) for s in seen.values()] == [(True, 0)] * 3
