/** Bodies that come slowly, in pieces, or not at all; and how they go on to the box. */

import assert from "node:assert/strict";

import { bench, fileOf, messageOf } from "./testing.ts";

const CALL = JSON.stringify({ endpoint: "fluency", audio: "data:audio/wav;base64,AAAA" });
const MIB = 1024 * 1024;

Deno.test("10: a body that never ends is 408 when its time is over, and is let go", async () => {
  const clock = new AbortController();
  let canceled = false;
  const body = new ReadableStream({
    start: (c) => c.enqueue(new TextEncoder().encode(CALL.slice(0, 20))),
    pull: () => clock.abort(), // the first piece was read, and no more comes
    cancel: () => void (canceled = true),
  });
  const asked: number[] = [];
  const after = (ms: number) => {
    asked.push(ms);
    return clock.signal;
  };
  const { ask, env, sent } = bench(undefined, { after });
  env.set("GPU_BACKEND_BODY_TIMEOUT_S", "7");
  const response = await ask({ method: "POST", body });
  assert.equal(response.status, 408);
  assert.match(await messageOf(response), /its body came too slowly/);
  assert.deepEqual([asked[0], canceled, sent.length], [7000, true, 0]);
});

Deno.test("10: a body in time is not cut off by the clock that runs on", async () => {
  const clock = new AbortController();
  const { call } = bench(() => {
    clock.abort();
    return Response.json({ ok: true });
  }, { after: (ms) => ms === 90_000 ? new AbortController().signal : clock.signal });
  assert.equal((await call(CALL)).status, 200);
});

Deno.test("10: when large bodies take all the memory, the next is 503 with Retry-After", async () => {
  const clock = new AbortController();
  const after = (ms: number) => ms === 15_000 ? clock.signal : new AbortController().signal;
  const { ask } = bench(undefined, { after });
  const headers = { "content-length": String(13 * MIB) };
  const open: ReadableStreamDefaultController[] = [];
  const hanging = Array.from({ length: 2 }, () => {
    const body = new ReadableStream({ start: (c) => void open.push(c) });
    return ask({ method: "POST", body, headers });
  });
  const third = ask({ method: "POST", body: new ReadableStream(), headers });
  await Promise.resolve();
  clock.abort();
  const response = await third;
  assert.equal(response.status, 503);
  assert.equal(response.headers.get("retry-after"), "5");
  const small = { method: "POST", body: CALL, headers: { "content-length": String(CALL.length) } };
  assert.equal((await ask(small)).status, 200); // goes on
  for (const controller of open) controller.error(new TypeError("reset"));
  assert.deepEqual((await Promise.all(hanging)).map(({ status }) => status), [499, 499]);
});

Deno.test("10: files of every size go out to the byte, large ones as a stream", async () => {
  for (const size of [1, 65_535, 65_536, 1_000_000, 2_000_000]) {
    const clip = new Uint8Array(size).map((_, i) => i % 251);
    let binary = "";
    for (let at = 0; at < size; at += 5000) {
      binary += String.fromCharCode(...clip.subarray(at, at + 5000));
    }
    const { call, sent } = bench();
    const audio = `data:audio/wav;base64,${btoa(binary)}`;
    assert.equal((await call({ endpoint: "fluency", audio, prompt: "é" })).status, 200);
    assert.deepEqual((await fileOf(sent[0]!, "audio")).bytes, clip);
  }
});
