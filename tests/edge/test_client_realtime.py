"""The client's run over Realtime, and by polling when Realtime is refused, silent, late or lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from box import Answer, Received
from polling import until

pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from test_client import app, run_page
from test_predictions import A, App, B

__all__ = ["app"]  # a fixture

ROWS = ("GET", "/rest/v1/predictions")
CODE = """
const NEVER = 600_000; // longer than this test may take
let reads = 0;
const realFetch = globalThis.fetch;
globalThis.fetch = (input, init) => {
  if (String(input).includes("/rest/v1/predictions")) reads++;
  return realFetch(input, init);
};
async function go(model, options, session = a) {
  const own = connect(session, { pollMs: NEVER, quietMs: NEVER, ...options });
  return await again(own.callme, model);
}
async function again(callme, model) {
  const versions = [];
  const onProgress = (row) => versions.push(row.version);
  const { output } = await callme.run(model, {}, { onProgress });
  callme.close();
  return [output, versions.every((version, i) => i === 0 || version > versions[i - 1])];
}
said.told = await go("told");
said.reads = reads;
said.refused = await go("refused", { pollMs: 50 });
said.silent = await go("silent", { quietMs: 50 });
said.late = await go("late");
said.cut = await go("cut", { pollMs: 50 });
said.expired = await go("expired");

// One that says once that it cannot be joined: no later word of it starts another reading.
const mute = connect(a, { pollMs: 50, quietMs: NEVER });
mute.supabase.channel = () => ({
  on: () => ({ subscribe: (heard) => heard("CHANNEL_ERROR") }),
});
mute.supabase.removeChannel = () => {};
said.mute = await again(mute.callme, "unheard");

const session = { ...a };
const one = connect(session, { pollMs: NEVER, quietMs: NEVER }).callme;
said.first = (await one.run("told", {})).output;
const { data } = await supabase.functions.invoke("predictions", { body: { model: "rejoined" } });
one.close();
said.second = (await one.follow(data.id)).output;
const both = await Promise.all([one.run("told", {}), one.run("told", {})]);
said.beside = both.map(({ output }) => output);
Object.assign(session, b);
said.other = await again(one, "told");

await supabase.realtime.setAuth();
const channel = supabase.channel(`callme:user:${b.user.id}`, { config: { private: true } });
said.intruder = await new Promise((resolve) => channel.subscribe(resolve));
said.gone = await callme.follow(crypto.randomUUID()).catch((error) => error.code);
const left = new AbortController();
const follows = callme.run("never", {}, { signal: left.signal }).catch((error) => error.name);
setTimeout(() => left.abort(), 300);
said.left = await follows;
"""


@pytest.mark.timeout(300)
def test_a_result_comes_whatever_realtime_does(app: App, tmp_path: Path) -> None:
    """By messages alone; without the right to join; from a channel that says nothing; from one
    that says it late, twice and in the wrong order; after the connection or the right is lost."""
    realtime = app.project.realtime

    def report(name: str, status: str, at: int, progress: int | None = None) -> None:
        event = {"id": name, "status": status, "at": at, "progress": progress, "output": at}
        assert app.report(event).status_code == 204

    def wait_for_join(*, allowed: bool, count: int) -> None:
        until(lambda: [a for _, a in realtime.joins[count:]].count(allowed))

    def work(model: str, name: str, joins: int, reads: int) -> None:
        if model == "never":
            return
        # Two at the same time share a channel.
        is_joined = any(socket.joined for socket in realtime.sockets)
        if model != "unheard" and not (model == "told" and is_joined):
            wait_for_join(allowed=model != "refused", count=joins)
        if model == "unheard":  # it has read the row, and again after the one word
            until(lambda: app.project.requests.count(ROWS) >= reads + 2)
        report(name, "processing", 1, 20)
        report(name, "processing", 2, 40)
        if model == "cut":
            realtime.refuses = True
            realtime.cut()
        if model == "expired":
            count = len(realtime.joins)
            realtime.expire()
            wait_for_join(allowed=True, count=count)
        report(name, "succeeded", 3)

    def box(received: Received) -> Answer:
        if received.method == "PUT":
            model, name = received.path.split("/")[-3], received.path.split("/")[-1]
            realtime.refuses, realtime.loses = model == "refused", model == "silent"
            realtime.late_s = 0.3 if model == "late" else 0
            start(work, model, name, len(realtime.joins), app.project.requests.count(ROWS))
        return Answer(202, b"{}")

    app.box.behaviour = box
    said = run_page(app, tmp_path, CODE)
    ways = ("told", "refused", "silent", "late", "cut", "expired", "mute", "other")
    assert {way: said[way] for way in ways} == {way: [3, True] for way in ways}
    assert said["reads"] <= 6, "at the start, at the join, and at each message"
    assert (said["first"], said["second"]) == (3, 3), "joined again although it was leaving"
    assert said["beside"] == [3, 3]
    assert said["intruder"] == "CHANNEL_ERROR"
    assert (said["gone"], said["left"]) == ("not_found", "AbortError")
    assert realtime.joins.count((f"callme:user:{A}", True)) >= 5
    assert (f"callme:user:{B}", True) in realtime.joins, "as the other user"
    assert (f"callme:user:{B}", False) in realtime.joins, "of another user"


def start(work: Callable[..., None], *arguments: object) -> None:
    """In a thread."""
    threading.Thread(target=work, args=arguments, daemon=True).start()
