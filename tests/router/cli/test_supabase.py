"""What of a Supabase project differs from this checkout and this box, and what to do."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner

from router.cli import app
from router.cli.supabase_api import (
    FUNCTIONS,
    SECRETS,
    WEBHOOK_SECRET,
    Deployed,
    ManagementApi,
    ManagementError,
    compare,
)
from router.settings import CHECKOUT

SECRET = "whsec_own"  # noqa: S105
MIGRATIONS = [p.name.split("_")[0] for p in (CHECKOUT / "supabase" / "migrations").glob("*.sql")]
ALL = Deployed(
    dict.fromkeys(FUNCTIONS, 3),
    {**dict.fromkeys(SECRETS, "x"), WEBHOOK_SECRET: hashlib.sha256(SECRET.encode()).hexdigest()},
    ("public", "callme"),
    MIGRATIONS,
)


def differs(deployed: Deployed, secret: str | None = SECRET) -> dict[str, str]:
    """Each check that is not ok, with what to do."""
    found = compare(deployed, CHECKOUT / "supabase", secret)
    return {f.check: f.fix for f in found if f.status != "ok"}


def test_each_difference_has_its_fix() -> None:
    """Nothing when all is there; else one line for each part."""
    assert differs(ALL) == {}
    assert differs(replace(ALL, migrations=MIGRATIONS[1:])) == {
        "migrations": "callme supabase init"
    }
    assert differs(replace(ALL, schemas=("public",))) == {"REST API": "callme supabase init"}
    assert differs(ALL, "whsec_other") == {"webhook secret": "callme supabase init"}
    assert differs(ALL, None) == {"webhook secret": "start the router once"}
    without = {name: value for name, value in ALL.secrets.items() if name != SECRETS[1]}
    assert differs(replace(ALL, secrets=without)) == {"the box's address": "callme up --public"}
    only = replace(ALL, functions={FUNCTIONS[0]: 1})
    assert set(differs(only)) == {f"function {name}" for name in FUNCTIONS[1:]}


async def test_the_token_is_not_in_a_message() -> None:
    """Also when the API repeats what it was sent."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, text=request.headers["Authorization"])

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    api = ManagementApi("abc", "sbp_token", f"http://127.0.0.1:{port}")
    with pytest.raises(ManagementError, match="403 Bearer <token>"):
        await api.ask("GET", "functions")
    await runner.cleanup()
    assert "sbp_token" not in repr(api)


def test_init_prints_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run does nothing; without a project or a token each command says what is missing."""
    monkeypatch.setenv("CALLME_STATE_DIR", str(tmp_path))
    for name in ("SUPABASE_PROJECT_ID", "SUPABASE_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    dry = CliRunner().invoke(app, ["supabase", "init", "--project", "abc", "--dry-run"])
    lines = dry.stdout.splitlines()
    assert lines[0] == "SUPABASE_PROJECT_ID=abc supabase db push --remote=abc --yes"
    assert " ".join(FUNCTIONS) in lines[1]
    deploy = ["supabase", "deploy", "--project", "abc", "--dry-run"]
    one, all_three = CliRunner().invoke(app, deploy), CliRunner().invoke(app, [*deploy, "--all"])
    assert f" {FUNCTIONS[0]} --use-api" in one.stdout
    assert f" {' '.join(FUNCTIONS)} --use-api" in all_three.stdout
    for command in ("init", "status", "doctor"):
        missing = CliRunner().invoke(app, ["supabase", command])
        assert (missing.exit_code, "no project is set" in missing.stderr) == (2, True)
    refused = CliRunner().invoke(app, ["supabase", "doctor", "--project", "abc"])
    assert (refused.exit_code, "SUPABASE_ACCESS_TOKEN is not set" in refused.stderr) == (2, True)
