import assert from "node:assert/strict";
import { bench } from "./testing.ts";
import { traceHeaders, traceId } from "./trace.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT = `00-${TRACE}-00f067aa0ba902b7-01`;
const CALL = { endpoint: "translate", text: "hello" };

Deno.test("a valid trace goes on, and nothing else", () => {
  assert.deepEqual(traceHeaders(new Headers({ traceparent: PARENT, tracestate: "a=b" })), {
    traceparent: PARENT,
    tracestate: "a=b",
  });
  assert.deepEqual(traceHeaders(new Headers({ tracestate: "a=b" })), {});
  const long = new Headers({ traceparent: PARENT, tracestate: "a=".padEnd(513, "b") });
  assert.deepEqual(traceHeaders(long), { traceparent: PARENT });
  for (
    const wrong of [
      "",
      "x",
      PARENT.toUpperCase(),
      PARENT.replace("00-", "ff-"),
      `00-${"0".repeat(32)}-00f067aa0ba902b7-01`,
      `00-${TRACE}-${"0".repeat(16)}-01`,
      `${PARENT}, ${PARENT}`,
    ]
  ) {
    assert.equal(traceId(wrong), undefined, wrong);
    assert.deepEqual(traceHeaders(new Headers({ traceparent: wrong })), {}, wrong);
  }
  assert.equal(traceId(`cc-${TRACE}-00f067aa0ba902b7-01-more`), TRACE);
});

Deno.test("the box gets the app's trace, the app gets the box's span, the log has the trace", async () => {
  const span = `00-${TRACE}-b7ad6b7169203331-01`;
  const b = bench(() => Response.json({ ok: true }, { headers: { traceresponse: span } }));
  b.env.set("GPU_BACKEND_ENDPOINTS", "translate");
  const answer = await b.call(CALL, { traceparent: PARENT });
  assert.equal(answer.status, 200, await answer.clone().text());
  assert.equal(b.sent[0]!.headers.get("traceparent"), PARENT);
  assert.equal(answer.headers.get("traceresponse"), span);
  assert.match(answer.headers.get("access-control-expose-headers")!, /Traceresponse/);
  assert.equal(b.log[0]!.trace_id, TRACE);
});

Deno.test("without a trace none is sent, and the log has the one that the box began", async () => {
  const span = `00-${TRACE}-b7ad6b7169203331-01`;
  const b = bench(() => Response.json({ ok: true }, { headers: { traceresponse: span } }));
  b.env.set("GPU_BACKEND_ENDPOINTS", "translate");
  await b.call(CALL);
  assert.equal(b.sent[0]!.headers.has("traceparent"), false);
  assert.equal(b.log[0]!.trace_id, TRACE);
});
