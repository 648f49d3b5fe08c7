/** What comes back from the box's side: its answers, its proxies' pages, and an end in time. */

import assert from "node:assert/strict";

import { relay } from "./answer.ts";
import { Memory } from "./memory.ts";
import { bench } from "./testing.ts";

const CALL = { endpoint: "fluency", audio: "data:audio/wav;base64,AAAA" };
const JSON_TYPE = { "content-type": "application/json" };
const HTML = { "content-type": "text/html; charset=utf-8", "retry-after": "30" };
const MIB = 1024 * 1024;

const PAGES: [number, number, string][] = [
  [404, 502, "bad_gateway"], // no tunnel of this name: the app asked for nothing wrong
  [403, 502, "bad_gateway"],
  [500, 502, "bad_gateway"],
  [502, 502, "bad_gateway"],
  [503, 503, "service_unavailable"],
  [504, 504, "gateway_timeout"],
  [413, 413, "payload_too_large"],
  [429, 429, "rate_limited"],
  [520, 502, "bad_gateway"],
  [522, 504, "gateway_timeout"],
  [524, 504, "gateway_timeout"],
  [530, 502, "bad_gateway"],
];
for (const [status, expected, code] of PAGES) {
  Deno.test(`10: a proxy's page with ${status} is ${expected} '${code}' in JSON`, async () => {
    const response = await bench(() => new Response("<html>", { status, headers: HTML })).call(
      CALL,
    );
    assert.equal(response.status, expected);
    assert.equal(response.headers.get("content-type"), "application/json");
    assert.equal(response.headers.get("retry-after"), "30");
    assert.equal((await response.json()).error.code, code);
  });
}

Deno.test("10: an error that only claims to be JSON, or is empty, is in JSON too", async () => {
  for (const body of ["<html>", "", '{"error": NaN}', null]) {
    const response = await bench(() => new Response(body, { status: 503, headers: JSON_TYPE }))
      .call(CALL);
    assert.equal(response.status, 503);
    assert.equal((await response.json()).error.code, "service_unavailable");
  }
});

Deno.test("10: an error that comes too slowly is 504, not a status without an end", async () => {
  const clock = new AbortController();
  const drip = (signal: AbortSignal) =>
    new ReadableStream({
      start(c) {
        c.enqueue(new TextEncoder().encode('{"error":'));
        signal.addEventListener("abort", () => c.error(signal.reason));
      },
      pull: () => clock.abort(new DOMException("time is up", "TimeoutError")),
    });
  const { call } = bench(
    ({ signal }) => new Response(drip(signal), { status: 422, headers: JSON_TYPE }),
    { after: (ms) => ms === 90_000 ? clock.signal : new AbortController().signal },
  );
  const response = await call(CALL);
  assert.equal(response.status, 504);
  assert.equal((await response.json()).error.code, "gateway_timeout");
});

Deno.test("10: a streamed answer ends at the deadline, even if fetch forgets its signal", async () => {
  const clock = new AbortController();
  let canceled = false;
  const body = new ReadableStream({
    pull: (c) => c.enqueue(new Uint8Array(MIB)),
    cancel: () => void (canceled = true),
  });
  const { call } = bench(() => new Response(body, { status: 500, headers: JSON_TYPE }), {
    after: (ms) => ms === 90_000 ? clock.signal : new AbortController().signal,
  });
  const reader = (await call(CALL)).body!.getReader();
  await reader.read();
  clock.abort(new DOMException("time is up", "TimeoutError"));
  await assert.rejects(async () => {
    while (!(await reader.read()).done);
  });
  assert.ok(canceled);
});

const STOP = { deadline: new AbortController().signal, gone: new AbortController().signal };

function memoryOf(total: number): Memory {
  return new Memory(total, { now: () => 0, after: () => new AbortController().signal });
}

Deno.test("10: a checked answer holds its memory until it is read, then gives it back", async () => {
  const memory = memoryOf(2 * MIB);
  const body = JSON.stringify({ picture: `data:image/png;base64,${"A".repeat(MIB)}` });
  const relayed = await relay(new Response(body, { headers: JSON_TYPE }), STOP, memory);
  assert.equal(relayed.headers.get("content-length"), String(body.length));
  assert.equal(memory.tryTake(MIB), null);
  assert.equal(await relayed.text(), body);
  assert.notEqual(memory.tryTake(2 * MIB), null);
});

Deno.test("10: an answer that nobody reads to its end gives its memory back", async () => {
  const memory = memoryOf(2 * MIB);
  const body = JSON.stringify("x".repeat(MIB));
  const relayed = await relay(new Response(body, { headers: JSON_TYPE }), STOP, memory);
  await relayed.body!.cancel();
  assert.notEqual(memory.tryTake(2 * MIB), null);
});

Deno.test("10: without room an answer is streamed unchecked, to the byte", async () => {
  const memory = memoryOf(2 * MIB);
  memory.tryTake(2 * MIB);
  const body = `{"picture":"${"A".repeat(MIB)}","nan":NaN}`;
  const relayed = await relay(new Response(body, { headers: JSON_TYPE }), STOP, memory);
  assert.equal(await relayed.text(), body);
});

Deno.test("10: a NaN beside a large picture is found", async () => {
  const body = `{"picture":"data:image/png;base64,${"A".repeat(3 * MIB)}","nan":NaN}`;
  const response = await bench(() => new Response(body, { headers: JSON_TYPE })).call(CALL);
  assert.equal(response.status, 502);
});
