"""A thin stand-in for a Supabase project's REST API and Storage, in front of the real Postgres.

Every request runs its real SQL with the caller's role, so grants, row level security and triggers
decide as on the platform. It differs from the real ones in this: tokens are HS256 with one secret;
Auth knows anonymous sign-ins only; REST knows `eq`, `limit`, `order` by one column, casts to text
and functions by name only; a signed URL does not expire; files are in memory; every page may call
(CORS); there is no rate limit. Its Realtime is in supabase_realtime.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn, cast
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import psycopg
from box import parse_parts
from postgres import SUPERUSER, Database
from psycopg import sql
from supabase_realtime import Realtime, running_realtime, serve_socket

SECRET_KEY, PUBLIC_KEY = "sb_secret_stand_in", "sb_publishable_stand_in"
JWT_SECRET = secrets.token_bytes(32)
# A browser does not take * for Authorization.
ALLOWED = "authorization, apikey, content-type, accept-profile, content-profile, x-client-info, "
ALLOWED += "x-supabase-api-version, x-upsert, cache-control, prefer"
ROLE = "authenticator"  # PostgREST's own; it may become any of the API's roles
STATUS = {"42501": 403, "23505": 409, "23503": 409, "42883": 404, "42P01": 404}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token_of(user: str, lifetime_s: int = 3600) -> str:
    """A signed-in user's access token."""
    claims = {"sub": user, "role": "authenticated", "exp": int(time.time()) + lifetime_s}
    text = ".".join(_b64(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
    return f"{text}.{_b64(hmac.digest(JWT_SECRET, text.encode(), hashlib.sha256))}"


@dataclass
class Project:
    """The running stand-in. `files` by bucket and name; `functions`: by name, the address of
    each, or what tells it at a call. `down` makes every request fail."""

    url: str
    database: Database
    realtime: Realtime
    files: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)
    functions: dict[str, str | Callable[[], str]] = field(default_factory=dict)
    exposed: set[str] = field(default_factory=lambda: {"public", "callme"})
    requests: list[tuple[str, str]] = field(default_factory=list)
    down: bool = False

    def env(self) -> dict[str, str]:
        """The variables that the platform gives each function."""
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_SECRET_KEYS": json.dumps({"default": SECRET_KEY}),
            "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": PUBLIC_KEY}),
        }

    def rows(self, what: str = "*", where: str = "true") -> list[dict[str, Any]]:
        """Rows of predictions, read by a superuser, oldest first."""
        found = self.database.run(
            f"select to_jsonb(p) from (select {what} from callme.predictions "
            f"where {where} order by created_at, id) p"
        )
        return [json.loads(line) for line in found.splitlines()]


class _Refused(Exception):
    def __init__(self, status: int, **body: object) -> None:
        super().__init__(str(body))
        self.status, self.body = status, body


def _missing() -> NoReturn:
    raise _Refused(400, statusCode="404", error="not_found")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    project: Project
    connections: queue.LifoQueue[psycopg.Connection]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        server = cast(_Server, self.server)
        self.project = server.project
        self.body = self._read()
        parts = urlsplit(self.path)
        self.query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.parts = [unquote(p) for p in parts.path.split("/")[1:]]
        self.project.requests.append((self.command, parts.path))
        try:
            if self.project.down:
                raise _Refused(503, message="down")
            kind, _, *rest = self.parts
            if kind == "realtime":
                return serve_socket(self, self.project.realtime, self._claims_of)
            if self.command == "OPTIONS":
                return self._answer(200, None)
            if kind == "auth":
                return self._answer(200, self._sign_up())
            if kind == "functions":
                return self._forward(rest)
            answer = self._rest(rest) if kind == "rest" else self._storage(rest)
            self._answer(200, answer)
        except _Refused as refused:
            self._answer(refused.status, refused.body)
        except psycopg.Error as error:
            code = error.sqlstate or ""
            status = int(code[2:]) if code.startswith("PT") else STATUS.get(code, 400)
            said = error.diag
            status = 401 if status == 403 and self._claims()["role"] == "anon" else status
            body = {"code": code, "message": said.message_primary, "hint": said.message_hint}
            self._answer(status, {**body, "details": said.message_detail})

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = _handle  # noqa: N815

    def _sign_up(self) -> object:
        """A new anonymous user, as `signInAnonymously` makes one."""
        insert = "insert into auth.users (is_anonymous) values (true) returning id"
        user = self.project.database.run(insert)
        session = {"token_type": "bearer", "expires_in": 3600, "refresh_token": "none"}
        who = {"id": user, "aud": "authenticated", "role": "authenticated", "is_anonymous": True}
        return {**session, "access_token": token_of(user), "user": who}

    def _forward(self, path: list[str]) -> None:
        """To a function, as the gateway does it."""
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        function = self.project.functions[path[0]]
        url = f"{function() if callable(function) else function}/{'/'.join(path)}"
        query = urlsplit(self.path).query
        with httpx.Client(timeout=150) as http:  # the platform answers 504 after that
            said = http.request(self.command, f"{url}?{query}", content=self.body, headers=kept)
        self._answer(said.status_code, (said.headers.get("Content-Type", ""), said.content))

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _claims(self) -> dict[str, Any]:
        """As the gateway and PostgREST find out who asks. Raises _Refused."""
        key = self.headers.get("apikey")
        if key == SECRET_KEY:
            return {"role": "service_role"}
        if key != PUBLIC_KEY:
            raise _Refused(401, message="No API key")
        return self._claims_of(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _claims_of(self, given: str) -> dict[str, Any]:
        if not given or given == PUBLIC_KEY:
            return {"role": "anon"}
        text, _, signature = given.rpartition(".")
        if signature != _b64(hmac.digest(JWT_SECRET, text.encode(), hashlib.sha256)):
            raise _Refused(401, code="PGRST301", message="JWSError JWSInvalidSignature")
        claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        if claims["exp"] < time.time():
            raise _Refused(401, code="PGRST303", message="JWT expired")
        return cast(dict[str, Any], claims)

    @contextmanager
    def _transaction(self, *, keep: bool = True) -> Iterator[psycopg.Cursor]:
        claims = self._claims()
        pool = cast(_Server, self.server).connections
        connection = pool.get()
        try:
            with connection.transaction(force_rollback=not keep), connection.cursor() as cursor:
                set_claims = "select set_config('request.jwt.claims', %s, true)"
                cursor.execute(set_claims, [json.dumps(claims)])
                cursor.execute("select set_config('role', %s, true)", [claims["role"]])
                yield cursor
        finally:
            pool.put(connection)

    # ---- REST --------------------------------------------------------------------------------

    def _rest(self, path: list[str]) -> object:
        header = "Accept-Profile" if self.command == "GET" else "Content-Profile"
        schema = self.headers.get(header, "public")
        if schema not in self.project.exposed:
            raise _Refused(406, code="PGRST106", message=f"Invalid schema: {schema}")
        if path[0] == "rpc":
            return self._call(schema, path[1])
        table = sql.Identifier(schema, path[0])
        where: sql.Composable = sql.SQL("true")
        values = []
        for name, text in self.query.items():
            if name not in ("limit", "select", "order"):
                assert text.startswith("eq.")
                where += sql.SQL(" and {} = %s").format(sql.Identifier(name))
                values.append(text[3:])
        if self.command == "POST":
            try:
                row = json.loads(self.body)
            except ValueError as error:
                raise _Refused(400, code="PGRST102", message="Empty or invalid json") from error
            names = sql.SQL(", ").join(map(sql.Identifier, row))
            marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
            values = [v if isinstance(v, str) else json.dumps(v) for v in row.values()]
            what = sql.SQL(
                "with t as (insert into {} ({}) values ({}) returning {}) select to_jsonb(t) from t"
            )
            query = what.format(table, names, marks, self._columns())
        elif self.command == "DELETE":
            what = sql.SQL("delete from {} as t where {} returning to_jsonb(t)")
            query = what.format(table, where)
        else:
            limit = sql.Literal(int(self.query.get("limit", 1000)))
            column, _, way = self.query.get("order", "").partition(".")
            text = f"order by {{}} {'desc' if way == 'desc' else 'asc'}" if column else ""
            order = sql.SQL(text).format(sql.Identifier(column))
            what = sql.SQL("select to_jsonb(t) from (select {} from {} where {} {} limit {}) t")
            query = what.format(self._columns(), table, where, order, limit)
        with self._transaction() as cursor:
            return [row[0] for row in cursor.execute(query, values)]

    def _columns(self) -> sql.Composable:
        """Those that are asked for; `input::text` is one as text."""
        if self.query.get("select", "*") == "*":
            return sql.SQL("*")
        asked = [one.partition("::") for one in self.query["select"].split(",")]
        as_text = sql.SQL("{0}::text as {0}")
        columns = [as_text if kind else sql.SQL("{0}") for _, _, kind in asked]
        names = [sql.Identifier(name) for name, _, _ in asked]
        return sql.SQL(", ").join(c.format(n) for c, n in zip(columns, names, strict=True))

    def _call(self, schema: str, name: str) -> object:
        with self._transaction() as cursor:
            found = cursor.execute(
                "select proretset, prorettype::regtype::text, coalesce(proargnames, '{}'), "
                "string_to_array(array_to_string(proargtypes::regtype[], ','), ',') from pg_proc "
                "where pronamespace = %s::regnamespace and proname = %s",
                [schema, name],
            ).fetchone()
            if found is None or found[1] == "trigger":
                raise _Refused(404, code="PGRST202", message=f"no function {schema}.{name}")
            is_set, returned, names, types = found
            given = json.loads(self.body or b"{}")
            kinds = dict(zip(names, types, strict=False))
            arguments = sql.SQL(", ").join(
                sql.SQL("{} => %s::{}").format(sql.Identifier(n), sql.SQL(kinds[n])) for n in given
            )
            values = [json.dumps(v) if isinstance(v, dict) else v for v in given.values()]
            call = sql.SQL("{}({})").format(sql.Identifier(schema, name), arguments)
            if is_set:
                what = sql.SQL("select to_jsonb(t) from (select {} from {}) t")
                cursor.execute(what.format(self._columns(), call), values)
                return [row[0] for row in cursor]
            cursor.execute(sql.SQL("select to_jsonb(x) from (select {} x) y").format(call), values)
            row = cursor.fetchone()
            return None if row is None or returned == "void" else row[0]

    # ---- Storage -----------------------------------------------------------------------------

    def _storage(self, path: list[str]) -> object:  # noqa: PLR0911 - one for each route
        match (self.command, *path[1:]):
            case ("POST", "upload", "sign", bucket, *name):
                self._insert(bucket, "/".join(name), keep=False)
                return {"url": f"/object/upload/sign/{self._token(bucket, name)}"}
            case ("PUT", "upload", "sign", bucket, *name):
                return self._put(bucket, "/".join(name))
            case ("POST", "sign", bucket):
                return self._sign(bucket, json.loads(self.body)["paths"])
            case ("POST", "sign", bucket, *name):
                [signed] = self._sign(bucket, ["/".join(name)])
                return signed if signed["signedURL"] else _missing()
            case ("GET", "sign", bucket, *name):
                self._check_token(bucket, "/".join(name))
                return self.project.files[bucket, "/".join(name)]
            case ("POST", "list", bucket):
                prefix = json.loads(self.body)["prefix"]
                with self._transaction() as cursor:
                    listed = cursor.execute(
                        "select name from storage.objects where bucket_id = %s and "
                        "starts_with(name, %s)",
                        [bucket, prefix],
                    ).fetchall()
                return [{"name": name.removeprefix(prefix)} for (name,) in listed]
            case ("DELETE", bucket):
                names = json.loads(self.body)["prefixes"]
                with self._transaction() as cursor:
                    where = "delete from storage.objects where bucket_id = %s and name = any(%s)"
                    gone = cursor.execute(f"{where} returning name", [bucket, names]).fetchall()
                for (name,) in gone:
                    self.project.files.pop((bucket, name), None)
                return [{"name": name} for (name,) in gone]
            case ("POST", bucket, *name):
                self._insert(bucket, "/".join(name))
                self._keep(bucket, "/".join(name))
                return {"Key": f"{bucket}/{'/'.join(name)}"}
        return _missing()

    def _sign(self, bucket: str, paths: list[str]) -> list[dict[str, str | None]]:
        where = "select name from storage.objects where bucket_id = %s and name = any(%s)"
        with self._transaction() as cursor:
            known = {row[0] for row in cursor.execute(where, [bucket, paths])}
        urls = [f"/object/sign/{self._token(bucket, [p])}" if p in known else None for p in paths]
        return [{"path": p, "signedURL": url} for p, url in zip(paths, urls, strict=True)]

    def _put(self, bucket: str, name: str) -> object:
        self._check_token(bucket, name)
        insert = "insert into storage.objects (bucket_id, name) values (%s, %s)"
        with psycopg.connect(self.project.database.url(SUPERUSER)) as connection:
            connection.execute(f"{insert} on conflict do nothing", [bucket, name])
        self._keep(bucket, name)
        return {"Key": f"{bucket}/{name}"}

    def _insert(self, bucket: str, name: str, *, keep: bool = True) -> None:
        with self._transaction(keep=keep) as cursor:
            insert = "insert into storage.objects (bucket_id, name) values (%s, %s)"
            upsert = " on conflict (bucket_id, name) do update set updated_at = now()"
            cursor.execute(
                insert + (upsert if self.headers.get("x-upsert") else ""), [bucket, name]
            )

    def _keep(self, bucket: str, name: str) -> None:
        kind, content = self.headers.get("Content-Type", ""), self.body
        if kind.startswith("multipart/form-data"):  # supabase-js sends a Blob so
            part = next(part for part in parse_parts(kind, content) if part.filename is not None)
            kind, content = part.content_type or "", part.data
        self.project.files[bucket, name] = kind, content

    def _token(self, bucket: str, name: list[str]) -> str:
        token = secrets.token_hex(8)
        self.project.tokens[token] = bucket, "/".join(name)
        return f"{bucket}/{'/'.join(name)}?token={token}"

    def _check_token(self, bucket: str, name: str) -> None:
        if self.project.tokens.get(self.query.get("token", "")) != (bucket, name):
            raise _Refused(400, statusCode="400", error="InvalidSignature")

    # ---- answering ---------------------------------------------------------------------------

    def _answer(self, status: int, answer: object) -> None:
        kind, body = "application/json", json.dumps(answer, default=str).encode()
        if isinstance(answer, tuple):
            kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for what in ("Origin", "Methods", "Headers"):
            self.send_header(f"Access-Control-Allow-{what}", ALLOWED if what == "Headers" else "*")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silent: a test prints what it needs."""


@contextmanager
def running_project(database: Database, connections: int = 16) -> Iterator[Project]:
    """The stand-in on a free loopback port."""
    with running_realtime(database) as realtime:
        yield from _running(database, realtime, connections)


def _running(database: Database, realtime: Realtime, connections: int) -> Iterator[Project]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.project = Project(f"http://127.0.0.1:{server.server_port}", database, realtime)
    server.connections = queue.LifoQueue()
    opened = [psycopg.connect(database.url(ROLE), autocommit=True) for _ in range(connections)]
    for connection in opened:
        server.connections.put(connection)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.project
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in opened:
            connection.close()
