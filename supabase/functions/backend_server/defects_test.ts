/**
 * Defects the function's first version had, by their number in the list; each test fails on it.
 * Numbers 7, 15 and 19 need a real server or the real CLI: they are in tests/edge/.
 */

import assert from "node:assert/strict";

import { bench, fileOf, formOf, messageOf, okay, PNG, WAV } from "./testing.ts";

const CALL = { endpoint: "fluency", audio: `data:audio/wav;base64,${WAV}` };
const GROUND = { endpoint: "grounding", image: `data:image/png;base64,${PNG}` };
const JSON_TYPE = { "content-type": "application/json" };

Deno.test("1: a preflight is 204 with CORS and grants the headers asked for", async () => {
  const { ask, sent } = bench();
  const asked = "authorization, apikey, content-type, x-client-info, x-supabase-api-version";
  const response = await ask({
    method: "OPTIONS",
    headers: {
      "Origin": "https://app.example",
      "Access-Control-Request-Method": "POST",
      "Access-Control-Request-Headers": asked,
    },
  });
  assert.equal(response.status, 204);
  assert.equal(response.headers.get("access-control-allow-origin"), "*");
  assert.equal(response.headers.get("access-control-allow-headers"), asked);
  assert.match(response.headers.get("access-control-allow-methods")!, /POST/);
  assert.equal(sent.length, 0);
});

Deno.test("2: every kind of answer carries CORS", async () => {
  const answers = [
    await bench().call(""),
    await bench().ask({ method: "GET" }),
    await bench(() => Response.json({}, { status: 500 })).call(CALL),
    await bench(() => Promise.reject(new TypeError("refused"))).call(CALL),
    await bench(() => new Response("<html>")).call(CALL),
    await bench().call(CALL),
  ];
  assert.deepEqual(answers.map(({ status }) => status), [400, 405, 500, 502, 502, 200]);
  for (const answer of answers) {
    assert.equal(answer.headers.get("access-control-allow-origin"), "*");
    assert.match(answer.headers.get("access-control-expose-headers")!, /Retry-After/);
  }
});

Deno.test("2: with an allow-list only listed origins are named, and caches are told", async () => {
  const { call, env } = bench();
  env.set("CORS_ALLOW_ORIGINS", "https://a.example, https://b.example");
  for (
    const [origin, allowed] of [["https://b.example", "https://b.example"], ["https://c", null]]
  ) {
    const response = await call(CALL, { Origin: origin! });
    assert.equal(response.headers.get("access-control-allow-origin"), allowed);
    assert.equal(response.headers.get("vary"), "Origin");
  }
});

const UNREADABLE = {
  "no comma": "data:audio/wav;base64",
  "bad base64": "data:audio/wav;base64,a$$b",
  "no data URI": "hello",
  "a number": 123,
  "an array": ["data:audio/wav;base64,AAAA"],
  "an object": { a: 1 },
  "true": true,
};
for (const [what, audio] of Object.entries(UNREADABLE)) {
  Deno.test(`3: ${what} as audio is a 400 that says what is wrong`, async () => {
    const { call, sent } = bench();
    const response = await call({ endpoint: "fluency", audio });
    assert.equal(response.status, 400);
    assert.match(await messageOf(response), /^Cannot read 'audio': it must /);
    assert.equal(sent.length, 0);
  });
}

Deno.test("3: url-safe base64 is read, the body null is 400", async () => {
  const { call, sent } = bench();
  await call({ endpoint: "fluency", audio: "data:audio/wav;base64,-_-_" });
  assert.deepEqual([...(await fileOf(sent[0]!, "audio")).bytes], [251, 255, 191]);
  assert.equal((await call("null")).status, 400);
});

Deno.test("4: a box that cannot be reached is 502, and its address stays private", async () => {
  const { call, log } = bench(() => Promise.reject(new TypeError("connect to 10.0.0.7 refused")));
  const response = await call(CALL);
  assert.equal(response.status, 502);
  const text = await response.text();
  assert.equal(JSON.parse(text).error.code, "bad_gateway");
  assert.doesNotMatch(text, /10\.0\.0\.7|box\.example/);
  assert.match(String(log[0]!.cause), /10\.0\.0\.7/);
});

const NOT_JSON: [string, () => Response][] = [
  ["HTML", () => new Response("<html>", { headers: { "content-type": "text/html" } })],
  ["HTML that claims to be JSON", () => new Response("<html>", { headers: JSON_TYPE })],
  ["nothing", () => new Response("", { headers: JSON_TYPE })],
  ["no body", () => new Response(null, { headers: JSON_TYPE })],
  ["204", () => new Response(null, { status: 204 })],
  ["NaN", () => new Response('{"wpm": NaN}', { headers: JSON_TYPE })],
  ["Infinity", () => new Response('{"wpm": -Infinity}', { headers: JSON_TYPE })],
  ["half an object", () => new Response('{"wpm": 1', { headers: JSON_TYPE })],
  ["broken UTF-8", () => new Response(new Uint8Array([0x22, 0xff, 0x22]), { headers: JSON_TYPE })],
  ["a redirect", () => new Response(null, { status: 302, headers: { location: "https://evil" } })],
  ["Cloudflare's 530", () => new Response("<html>", { status: 530 })],
];
for (const [what, box] of NOT_JSON) {
  Deno.test(`5: ${what} from the box is 502`, async () => {
    const response = await bench(box).call(CALL);
    assert.equal(response.status, 502);
    assert.equal(response.headers.get("access-control-allow-origin"), "*");
    assert.match(await messageOf(response), /^the GPU box /);
  });
}

Deno.test("5: an answer that breaks off while it is read is 502", async () => {
  const broken = () => new ReadableStream({ pull: (c) => c.error(new TypeError("reset")) });
  const response = await bench(() => new Response(broken(), { headers: JSON_TYPE })).call(CALL);
  assert.equal(response.status, 502);
});

Deno.test("6: the box gets 90 s, then the answer is 504 and its work is abandoned", async () => {
  const clock = new AbortController();
  let asked = 0;
  const after = (ms: number) => {
    asked = ms;
    return clock.signal;
  };
  const { call, sent } = bench(
    ({ signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        clock.abort(new DOMException("time is up", "TimeoutError"));
      }),
    { after },
  );
  const response = await call(CALL);
  assert.equal(asked, 90_000);
  assert.equal(response.status, 504);
  assert.equal(await messageOf(response), "the GPU box took too long");
  assert.equal(sent[0]!.signal.aborted, true);
});

Deno.test("6: GPU_BACKEND_TIMEOUT_S sets the time, Cloudflare's own time-out is 504 too", async () => {
  let asked = 0;
  const after = (ms: number) => {
    asked = ms;
    return new AbortController().signal;
  };
  const { call, env } = bench(() => new Response("<html>", { status: 524 }), { after });
  env.set("GPU_BACKEND_TIMEOUT_S", "2.5");
  assert.equal((await call(CALL)).status, 504);
  assert.equal(asked, 2500);
});

Deno.test("8: the box's error keeps its status, body, type and Retry-After", async () => {
  for (
    const [status, type] of [[422, "application/json"], [429, "application/json"], [
      503,
      "application/problem+json; charset=utf-8",
    ]]
  ) {
    const body = '{"error": {"code":"x",  "message":"voll 🐈"}}\n';
    const headers = { "content-type": String(type), "retry-after": "7", "x-prediction-id": "p1" };
    const response = await bench(() => new Response(body, { status: Number(status), headers }))
      .call(CALL);
    assert.equal(response.status, status);
    assert.equal(await response.text(), body);
    assert.equal(response.headers.get("content-type"), type);
    assert.equal(response.headers.get("retry-after"), "7");
    assert.equal(response.headers.get("x-prediction-id"), "p1");
  }
});

Deno.test("8: headers that are the box's own business stay behind", async () => {
  const headers = {
    ...JSON_TYPE,
    "set-cookie": "a=b",
    "server": "box",
    "access-control-allow-origin": "x",
  };
  const response = await bench(() => new Response("{}", { headers })).call(CALL);
  assert.equal(response.headers.get("set-cookie"), null);
  assert.equal(response.headers.get("server"), null);
  assert.equal(response.headers.get("access-control-allow-origin"), "*");
});

Deno.test("9: the answer's bytes are not touched", async () => {
  const body = '{ "seed": 12345678901234567890, "wpm":1.0 ,"e":1e3,"a":"\\u00e9"}\n';
  const response = await bench(() => new Response(body, { headers: JSON_TYPE })).call(CALL);
  assert.equal(await response.text(), body);
});

Deno.test("9: an answer too large to check is streamed, byte for byte", async () => {
  const chunk = new Uint8Array(1 << 20).fill(97);
  let left = 12;
  const body = new ReadableStream({
    pull: (c) => left-- > 0 ? c.enqueue(chunk.slice()) : c.close(),
  });
  const response = await bench(() => new Response(body, { headers: JSON_TYPE })).call(CALL);
  assert.equal(response.status, 200);
  assert.ok(left > 0, "the whole answer was read before the first byte was sent");
  assert.equal((await response.arrayBuffer()).byteLength, 12 << 20);
});

Deno.test("10: an array is sent as JSON, an empty string as itself, null not at all", async () => {
  const { call, sent } = bench();
  await call({
    ...GROUND,
    text_queries: ["a cat, sleeping", "dog"],
    prompt: "",
    box_threshold: null,
    nested: { a: [1.0, true, null] },
  });
  const form = Object.fromEntries(await formOf(sent[0]!));
  assert.deepEqual(JSON.parse(String(form.text_queries)), ["a cat, sleeping", "dog"]);
  assert.equal(form.prompt, "");
  assert.equal(form.nested, '{"a":[1,true,null]}');
  assert.equal("box_threshold" in form, false);
});

Deno.test("11: the file part has the data URI's MIME type and a name to match", async () => {
  const { call, sent } = bench();
  await call({ endpoint: "fluency", audio: `data:audio/webm;codecs=opus;base64,${WAV}` });
  const { file } = await fileOf(sent[0]!, "audio");
  assert.deepEqual([file.name, file.type], ["audio.webm", "audio/webm;codecs=opus"]);
});

Deno.test("12: inputs this function does not know reach the model as they were written", async () => {
  const { call, sent } = bench();
  await call(
    `{"endpoint":"sketch2real","image":"data:image/png;base64,${PNG}","prompt":"a\\nred ☂",` +
      `"seed":12345678901234567890,"guidance_scale":7.0,"tiled":true,"mask":"data:image/png,x"}`,
  );
  const form = await formOf(sent[0]!);
  assert.equal(form.get("prompt"), "a\nred ☂");
  assert.equal(form.get("seed"), "12345678901234567890");
  assert.equal(form.get("guidance_scale"), "7.0");
  assert.equal(form.get("tiled"), "true");
  assert.equal((form.get("mask") as File).name, "mask.png");
});

Deno.test("13: only POST runs a model", async () => {
  for (const method of ["GET", "HEAD", "PUT", "DELETE", "PATCH"]) {
    const { ask, sent } = bench();
    const response = await ask({ method });
    assert.equal(response.status, 405);
    assert.equal(response.headers.get("allow"), "POST, OPTIONS");
    assert.equal(sent.length, 0);
  }
});

Deno.test("14: an announced body over the cap is 413 before a byte of it is read", async () => {
  const { ask } = bench();
  let pulled = 0;
  const body = new ReadableStream({
    pull(c) {
      pulled++;
      c.close();
    },
  }, { highWaterMark: 0 });
  const response = await ask({ method: "POST", body, headers: { "content-length": "99999999" } });
  assert.equal(response.status, 413);
  assert.equal(pulled, 0);
});

Deno.test("14: a body that grows past the cap is 413 and its rest is not read", async () => {
  const { ask } = bench();
  let pulled = 0, canceled = false;
  const body = new ReadableStream({
    pull(c) {
      if (++pulled > 40) c.close();
      else c.enqueue(new Uint8Array(1 << 20).fill(32));
    },
    cancel: () => void (canceled = true),
  });
  const response = await ask({ method: "POST", body });
  assert.equal(response.status, 413);
  assert.ok(pulled < 20 && canceled, `${pulled} MiB were read`);
});

Deno.test("14: files are counted decoded and together, against GPU_BACKEND_MAX_BYTES", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_MAX_BYTES", "60");
  assert.equal((await call(CALL)).status, 200);
  assert.equal((await call({ ...CALL, clip: CALL.audio })).status, 413);
  env.set("GPU_BACKEND_MAX_BYTES", "43");
  const response = await call(CALL);
  assert.equal(response.status, 413);
  assert.equal((await response.json()).error.details.max_bytes, 43);
  assert.equal(sent.length, 1);
});

Deno.test("16: a changed URL is used from the next request on", async () => {
  const { call, env, sent } = bench();
  await call(CALL);
  env.set("GPU_BACKEND_URL", "https://new-words.trycloudflare.com");
  await call(CALL);
  assert.equal(sent[1]!.url, "https://new-words.trycloudflare.com/fluency");
});

for (const url of ["", "box", "ftp://box", "https://u:p@box", "https://box/?a=b"]) {
  Deno.test(`16: the URL '${url}' is 503 'not configured', not a crash`, async () => {
    const { call, env } = bench(okay);
    env.set("GPU_BACKEND_URL", url);
    const response = await call(CALL);
    assert.equal(response.status, 503);
    assert.match(await messageOf(response), /'GPU_BACKEND_URL'/);
  });
}

Deno.test("17: with a key every request is signed, and the key itself never sent", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_KEY", "correct horse");
  await call(CALL);
  assert.match(sent[0]!.headers.get("x-callme-signature")!, /^v2=[0-9a-f]{64}$/);
  const seen = JSON.stringify([...sent[0]!.headers]) + new TextDecoder().decode(sent[0]!.body);
  assert.doesNotMatch(seen, /correct horse/);
});

Deno.test("18: BACKEND_SERVER_AUTH=publishable asks for one of the project's keys", async () => {
  const { call, env, sent } = bench();
  env.set("BACKEND_SERVER_AUTH", "publishable");
  env.set(
    "SUPABASE_PUBLISHABLE_KEYS",
    '{"default":"sb_publishable_a","mobile":"sb_publishable_b"}',
  );
  assert.equal((await call(CALL)).status, 401);
  assert.equal((await call(CALL, { apikey: "sb_publishable_c" })).status, 401);
  assert.equal((await call(CALL, { apikey: "" })).status, 401);
  assert.equal((await call(CALL, { apikey: "sb_publishable_b" })).status, 200);
  env.set("SUPABASE_PUBLISHABLE_KEYS", "{").set("BACKEND_SERVER_AUTH", "publishable");
  assert.equal((await call(CALL, { apikey: "sb_publishable_b" })).status, 503);
  env.set("BACKEND_SERVER_AUTH", "typo");
  assert.equal((await call(CALL, { apikey: "sb_publishable_b" })).status, 503);
  assert.equal(sent.length, 1);
});
