"""Supabase's Management API: what a project has, and what of it differs from this checkout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from router.cli.doctor import CheckStatus, Finding
from router.outbound.resolver import system_connector

SCHEMA = "callme"
FUNCTIONS = ("backend_server", "predictions", "prediction_webhook")
SECRETS = ("GPU_BACKEND_URL", "GPU_BACKEND_KEY", "GPU_BACKEND_KEY_ID")
WEBHOOK_SECRET = "CALLME_WEBHOOK_SECRET"  # noqa: S105 - its name
LIMIT_S = 60.0
INIT = "callme supabase init"


class ManagementError(Exception):
    """The API cannot be reached or refuses. The message is for a person."""


@dataclass(frozen=True, slots=True)
class ManagementApi:
    """One project at the API."""

    project: str
    token: str = field(repr=False)
    url: str

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """A request below the project. Raises ManagementError when it does not succeed."""
        url = f"{self.url}/v1/projects/{self.project}/{path}"
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=LIMIT_S), connector=system_connector()
                ) as http,
                http.request(
                    method, url, json=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    said = (await response.text(errors="replace")).replace(self.token, "<token>")
                    raise ManagementError(f"{path}: {response.status} {said[:200]}".strip())
                is_json = "json" in response.headers.get("Content-Type", "")
                return await response.json() if is_json else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ManagementError(f"{path}: not reached ({type(error).__name__})") from error

    async def expose_schema(self) -> bool:
        """Add the schema to those of the project's REST API. False when it was there already."""
        schemas = await self.exposed_schemas()
        if SCHEMA in schemas:
            return False
        await self.ask("PATCH", "postgrest", {"db_schema": ", ".join([*schemas, SCHEMA])})
        return True

    async def exposed_schemas(self) -> list[str]:
        """The schemas that the project's REST API serves."""
        listed = str((await self.ask("GET", "postgrest"))["db_schema"])
        return [name.strip() for name in listed.split(",") if name.strip()]

    async def set_secret(self, name: str, value: str) -> None:
        """Set one secret of the functions."""
        await self.ask("POST", "secrets", [{"name": name, "value": value}])

    async def run_sql(self, query: str) -> Any:
        """Run SQL as `postgres`. Returns the rows."""
        return await self.ask("POST", "database/query", {"query": query})


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a project has. `secrets`: the SHA-256 of each value, as hex, by its name."""

    functions: dict[str, int]
    secrets: dict[str, str]
    schemas: Sequence[str]
    migrations: Sequence[str]


async def read_deployed(api: ManagementApi) -> Deployed:
    """Ask for all of it. Raises ManagementError."""
    functions = await api.ask("GET", "functions")
    secrets = await api.ask("GET", "secrets")
    migrations = await api.ask("GET", "database/migrations")
    return Deployed(
        {f["slug"]: int(f["version"]) for f in functions},
        {s["name"]: str(s.get("value", "")) for s in secrets},
        await api.exposed_schemas(),
        [str(m["version"]) for m in migrations],
    )


def compare(deployed: Deployed, folder: Path, webhook_secret: str | None) -> Iterator[Finding]:
    """What of a project is not as this checkout and this box have it, and what to do."""
    for name in FUNCTIONS:
        if name in deployed.functions:
            yield _ok(f"function {name}", f"version {deployed.functions[name]}")
        else:
            fix = "callme supabase deploy" if name == FUNCTIONS[0] else INIT
            yield _fail(f"function {name}", "is not deployed", fix)
    local = [p.name.partition("_")[0] for p in sorted((folder / "migrations").glob("*.sql"))]
    missing = [version for version in local if version not in deployed.migrations]
    if missing:
        yield _fail("migrations", f"{len(missing)} of {len(local)} have not run", INIT)
    else:
        yield _ok("migrations", f"all {len(local)} have run")
    if SCHEMA in deployed.schemas:
        yield _ok("REST API", f"serves the schema {SCHEMA}")
    else:
        yield _fail("REST API", f"does not serve the schema {SCHEMA}", INIT)
    unset = [name for name in SECRETS if name not in deployed.secrets]
    if unset:
        yield _fail("the box's address", f"{', '.join(unset)} not set", "callme up --public")
    else:
        yield _ok("the box's address", "is set")
    yield _check_webhook_secret(deployed.secrets.get(WEBHOOK_SECRET), webhook_secret)


def _check_webhook_secret(digest: str | None, own: str | None) -> Finding:
    check = "webhook secret"
    if digest is None:
        return _fail(check, f"{WEBHOOK_SECRET} is not set", INIT)
    if own is None:
        return Finding(check, CheckStatus.WARN, "this box has none yet", "start the router once")
    if digest.lower() != hashlib.sha256(own.encode()).hexdigest():
        return _fail(check, "is not this box's", INIT)
    return _ok(check, "is this box's")


def _ok(check: str, found: str) -> Finding:
    return Finding(check, CheckStatus.OK, found)


def _fail(check: str, found: str, fix: str) -> Finding:
    return Finding(check, CheckStatus.FAIL, found, fix)
