"""`callme supabase init` and `doctor`: the real CLI and SQL, and a stand-in of the API."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from npm_tools import SUPABASE_CLI, npm_binary
from postgres import Database, copy_of
from test_deploy import PROJECT, checkout, run, running_platform

SLUGS = ("backend_server", "predictions", "prediction_webhook")


@dataclass
class Hosted:
    """What the Management API keeps of one project; SQL is run in the database."""

    database: Database
    schemas: str = "public, graphql_public"
    secrets: dict[str, str] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)

    def answer(  # noqa: PLR0911 - one for each route
        self, method: str, path: str, body: bytes
    ) -> tuple[int, object] | None:
        """As https://supabase.com/docs/reference/api describes."""
        match method, path.partition("?")[0]:
            case "GET", "postgrest":
                return 200, {"db_schema": self.schemas, "max_rows": 1000}
            case "PATCH", "postgrest":
                self.schemas = json.loads(body)["db_schema"]
                return 200, {"db_schema": self.schemas}
            case "POST", "secrets":
                self.secrets |= {s["name"]: s["value"] for s in json.loads(body)}
                return 201, None
            case "GET", "secrets":
                hashed = {
                    n: hashlib.sha256(v.encode()).hexdigest() for n, v in self.secrets.items()
                }
                return 200, [{"name": n, "value": v} for n, v in hashed.items()]
            case "GET", "functions":
                return 200, [{"slug": s, "version": 1} for s in sorted(self.functions)]
            case "POST", "functions/deploy":
                self.functions.add(parse_qs(urlsplit(path).query)["slug"][0])
                return None
            case "POST", "database/query":
                said = self.database.run(json.loads(body)["query"], "postgres")
                return 201, [{"clock": said}]
            case "GET", "database/migrations":
                applied = "select version from supabase_migrations.schema_migrations"
                return 200, [{"version": v} for v in self.database.run(applied).split()]
        return None


@pytest.fixture
def hosted(cluster: Database) -> Iterator[Hosted]:
    """A project as new: nothing of ours is in it."""
    with copy_of(cluster) as database:
        database.file(Path(__file__).parents[2] / "supabase" / "down" / "callme.sql")
        database.run("create schema supabase_migrations authorization postgres")
        database.run(
            "create table supabase_migrations.schema_migrations (version text primary key, "
            "statements text[], name text);"
            "alter table supabase_migrations.schema_migrations owner to postgres"
        )
        yield Hosted(database)


@pytest.mark.timeout(400)
def test_a_new_project_is_set_up(hosted: Hosted, tmp_path: Path) -> None:
    """doctor says what is missing, init does it, and doctor is content."""
    cli = npm_binary(SUPABASE_CLI, "supabase")
    callme = [sys.executable, "-m", "router.cli", "supabase"]
    with running_platform() as platform:
        platform.answers = hosted.answer
        project, profile, env = checkout(platform, tmp_path)
        env |= {
            "PATH": f"{cli.parent}:{env['PATH']}",
            "CALLME_SUPABASE_API_URL": platform.url,
            "CALLME_STATE_DIR": str(tmp_path / "state"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        folder = ["--folder", str(project)]

        def doctor() -> tuple[int, dict[str, str]]:
            done = run([*callme, "doctor", "--json", *folder], project, env)
            found = {f["check"]: f["fix"] for f in json.loads(done.stdout) if f["status"] != "ok"}
            return done.returncode, found

        code, missing = doctor()
        assert code == 1
        assert missing == {
            "function backend_server": "callme supabase deploy",
            "function predictions": "callme supabase init",
            "function prediction_webhook": "callme supabase init",
            "migrations": "callme supabase init",
            "REST API": "callme supabase init",
            "the box's address": "callme up --public",
            "webhook secret": "callme supabase init",
        }
        address = ["--database-url", hosted.database.url()]
        init = [*callme, "init", "--profile", str(profile), *address, *folder]
        done: subprocess.CompletedProcess[str] = run(init, project, env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is set up" in done.stderr
        assert hosted.schemas == "public, graphql_public, callme"
        assert hosted.functions == set(SLUGS)
        secret = (tmp_path / "state" / "webhook_secret").read_text().strip()
        assert hosted.secrets == {"CALLME_WEBHOOK_SECRET": secret}
        assert secret not in done.stdout + done.stderr
        url = hosted.database.run("select functions_url from callme.settings")
        assert url == f"https://{PROJECT}.supabase.co/functions/v1"
        for name in ("URL", "KEY", "KEY_ID"):
            hosted.secrets[f"GPU_BACKEND_{name}"] = "x"
        assert doctor() == (0, {})
