"""supabase/client/callme.ts on the real supabase-js, against the functions and the real SQL."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from box import Answer, Received
from deno_server import ROOT, find_deno, plain_env
from example_page import SUPABASE_JS
from npm_tools import npm_folder
from postgres import Database

pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from supabase_project import PUBLIC_KEY, token_of
from test_predictions import A, App, B, running_app

CLIENT = ROOT / "supabase" / "client" / "callme.ts"
PAGE = """
import { createClient } from "@supabase/supabase-js";
import { createCallme } from "./callme.ts";

/** A client whose user has signed in: Auth is not among what is tested here. */
function connect(session, options) {
  const supabase = createClient(Deno.env.get("URL"), Deno.env.get("KEY"), {
    auth: { persistSession: false },
  });
  supabase.auth.getSession = () => Promise.resolve({ data: { session } });
  return { supabase, callme: createCallme(supabase, options) };
}
const [a, b] = SESSIONS;
const { supabase, callme } = connect(a, { pollMs: 100 });
const said = {};
"""
END = "\nconsole.log(JSON.stringify(said)); Deno.exit(0);\n"


@pytest.fixture
def app(cluster: Database) -> Iterator[App]:
    """The project with its functions behind its own address, and two users."""
    cluster.clear()
    cluster.run(f"insert into auth.users (id) values ('{A}'), ('{B}')")
    with running_app(cluster) as running:
        running.project.functions["predictions"] = running.predictions.url
        yield running


def run_page(app: App, folder: Path, code: str) -> dict[str, Any]:
    """Runs the code after PAGE in Deno; returns what it has put into `said`."""
    modules = npm_folder(SUPABASE_JS) / "node_modules"
    (folder / "node_modules").unlink(missing_ok=True)
    (folder / "node_modules").symlink_to(modules)
    (folder / "package.json").write_text('{"dependencies": {"@supabase/supabase-js": "*"}}')
    shutil.copy(CLIENT, folder)
    sessions = [{"user": {"id": user}, "access_token": token_of(user)} for user in (A, B)]
    page = PAGE.replace("SESSIONS", json.dumps(sessions))
    (folder / "page.mjs").write_text(page + code + END)
    arguments = ["run", "--no-remote", "--no-lock", "--node-modules-dir=manual", "--no-check", "-A"]
    done = subprocess.run(
        [str(find_deno()), *arguments, "page.mjs"],
        cwd=folder,
        env=plain_env(URL=app.project.url, KEY=PUBLIC_KEY),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.timeout(300)
def test_a_page_runs_a_model(app: App, tmp_path: Path) -> None:
    """A file is uploaded, progress comes, the output's file can be read; a reload finds the same
    run; a refusal and a cancel are errors with their code."""

    def work(received: Received) -> Answer:
        body = json.loads(received.body)
        if body.get("input", {}).get("seed") == "x":
            refusal = {"error": {"code": "invalid_input", "message": "no number"}}
            return Answer(422, json.dumps(refusal).encode())
        if received.path.endswith("/cancel"):
            name = received.path.split("/")[-2]
            report(0.1, {"id": name, "status": "canceled", "at": 9})
        elif received.method == "PUT" and body["input"].get("image"):
            name = received.path.split("/")[-1]
            report(0.3, {"id": name, "status": "processing", "at": 1, "progress": 40})
            place = [{"place": ["image"], "name": "i.png"}]
            done = {"output": {"image": None}, "output_files": place, "at": 2}
            app.project.files["callme-outputs", f"{A}/{name}/i.png"] = "image/png", b"picture"
            object_row = f"('callme-outputs', '{A}/{name}/i.png')"
            app.project.database.run(
                f"insert into storage.objects (bucket_id, name) values {object_row}"
            )
            report(1.0, {"id": name, "status": "succeeded", **done})
        return Answer(202, b"{}")

    def report(after_s: float, event: dict[str, Any]) -> None:
        def later() -> None:
            time.sleep(after_s)
            app.report(event)

        threading.Thread(target=later).start()

    app.box.behaviour = work
    said = run_page(
        app,
        tmp_path,
        """
        const image = new File([new Uint8Array(9)], "cat.png", { type: "image/png" });
        const seen = [];
        const onProgress = (row) => seen.push(row.progress);
        const input = { image, others: [image, "x"], seed: 7 };
        const row = await callme.run("sketch2real", input, { key: "k", onProgress });
        said.seen = seen;
        said.picture = await (await fetch(await callme.url(row.output.image))).text();
        const again = await callme.run("sketch2real", input, { key: "k" });
        said.same = again.id === row.id;
        said.refused = await callme.run("echo", { seed: "x" }).catch((e) => [e.code, e.message]);
        const { data } = await supabase.functions.invoke("predictions", { body: { model: "m" } });
        const ends = callme.follow(data.id).catch((e) => e.code);
        await callme.cancel(data.id);
        said.canceled = await ends;
        said.listed = (await callme.list()).length;
        """,
    )
    assert said.pop("seen")[-1] == 40
    uploaded = [name for bucket, name in app.project.files if bucket == "callme-inputs"]
    assert len(uploaded) == 2, "files in lists too, and none again for a run that exists"
    sent = json.loads(app.puts()[0].body)["input"]
    assert sent["others"][1] == "x"
    assert {
        urlsplit(url).path.rpartition("/")[2] for url in (sent["image"], sent["others"][0])
    } == {name.rpartition("/")[2] for name in uploaded}
    assert said == {
        "picture": "picture",
        "same": True,
        "refused": ["invalid_input", "no number"],
        "canceled": "canceled",
        "listed": 3,
    }


UNREAD = """
let reads, left, planned = [];
const realFetch = globalThis.fetch;
globalThis.fetch = (input, init) => {
  if (!String(input).includes("/rest/v1/predictions")) return realFetch(input, init);
  if (++reads > 9) left.abort(); // it would try without end
  const status = planned.shift();
  const away = () => new Response(JSON.stringify({ message: "away" }), { status });
  return status ? Promise.resolve(away()) : realFetch(input, init);
};
const codeOf = (work) => work.then(() => "none", (error) => error.code);
async function ends(callme, id = crypto.randomUUID()) {
  reads = 0;
  left = new AbortController();
  return [await codeOf(callme.follow(id, { signal: left.signal })), reads];
}
const go = (session) => connect(session, { pollMs: 50 });

planned = [500, 429, 502];
said.away = await ends(callme);
const signing = go(a);
const getSession = signing.supabase.auth.getSession;
const data = { session: null };
let refusals = 2;
signing.supabase.auth.getSession = () => refusals-- > 0 ? { data, error: Error() } : getSession();
said.auth_away = await ends(signing.callme);

said.expired = await ends(go({ ...a, access_token: "EXPIRED" }).callme);
planned = [401];
said.gateway = await ends(callme);
said.no_id = await ends(callme, "no-id");
const hidden = go(a);
const schema = hidden.supabase.schema.bind(hidden.supabase);
hidden.supabase.schema = () => schema("hidden");
said.hidden = await ends(hidden.callme);
said.hidden_key = await codeOf(hidden.callme.run("echo", {}, { key: "k" }));
said.hidden_list = await codeOf(hidden.callme.list());
const nobody = go(null).callme;
said.nobody = await ends(nobody);
said.nobody_says = await nobody.follow("id").catch((error) => error.message);
said.nobody_list = await codeOf(nobody.list());
"""


def test_what_cannot_be_read_ends_with_its_reason(app: App, tmp_path: Path) -> None:
    """No session, no right, a token or an id that is none: at once, with the code. While the
    database or Auth is away, it is tried again."""
    said = run_page(app, tmp_path, UNREAD.replace("EXPIRED", token_of(A, -60)))
    assert (said["away"], said["auth_away"]) == (["not_found", 4], ["not_found", 1])
    assert said["expired"] == ["PGRST303", 1]
    assert said["gateway"] == ["unauthorized", 1]
    assert said["no_id"] == ["22P02", 1]
    assert said["hidden"] == ["PGRST106", 1]
    assert (said["hidden_key"], said["hidden_list"]) == ("PGRST106", "PGRST106")
    assert (said["nobody"], said["nobody_list"]) == (["unauthorized", 0], "42501")
    assert said["nobody_says"] == "Sign in first"


def test_the_client_is_small(tmp_path: Path) -> None:
    """At most 3 kB of JavaScript; its types are right, with the settings of the functions."""
    out = tmp_path / "callme.js"
    settings = ["-c", str(ROOT / "supabase" / "functions" / "predictions" / "deno.json")]
    for arguments in (
        ["check", *settings, str(CLIENT)],
        ["lint", *settings, str(CLIENT)],
        ["fmt", "--check", *settings, str(CLIENT)],
        ["bundle", "--minify", str(CLIENT), "-o", str(out)],
    ):
        done = subprocess.run(
            [str(find_deno()), *arguments],
            # The bundler is downloaded, perhaps through a proxy with a certificate of its own.
            env=plain_env(DENO_TLS_CA_STORE="mozilla,system"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(out.read_bytes()) <= 3000
