/** The app's contract: what it sends, what it gets back. */

import assert from "node:assert/strict";

import { bench, BOX, fileOf, formOf, messageOf, okay, PNG, WAV } from "./testing.ts";

const AUDIO = `data:audio/wav;base64,${WAV}`;
const IMAGE = `data:image/png;base64,${PNG}`;

Deno.test("fluency: the audio arrives as a file part and the model's JSON comes back", async () => {
  const { call, sent } = bench(() => Response.json({ syllables: 0, speech: false }));
  const response = await call({ endpoint: "fluency", audio: AUDIO });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("access-control-allow-origin"), "*");
  assert.deepEqual(await response.json(), { syllables: 0, speech: false });
  assert.equal(sent[0]!.url, `${BOX}/fluency`);
  assert.equal(sent[0]!.method, "POST");
  const { file, bytes } = await fileOf(sent[0]!, "audio");
  assert.equal(new TextDecoder().decode(bytes.slice(0, 4)), "RIFF");
  assert.deepEqual([file.name, file.type, bytes.length], ["audio.wav", "audio/wav", 44]);
});

Deno.test("sketch2real: the image arrives as a file part", async () => {
  const { call, sent } = bench();
  assert.equal((await call({ endpoint: "sketch2real", image: IMAGE })).status, 200);
  assert.equal(sent[0]!.url, `${BOX}/sketch2real`);
  const { file, bytes } = await fileOf(sent[0]!, "image");
  assert.deepEqual([file.name, file.type, bytes.length], ["image.png", "image/png", 8]);
});

Deno.test("grounding: text_queries and box_threshold arrive as text parts", async () => {
  const { call, sent } = bench();
  await call({ endpoint: "grounding", image: IMAGE, text_queries: "a cat.", box_threshold: 0.35 });
  const form = await formOf(sent[0]!);
  assert.equal(form.get("text_queries"), "a cat.");
  assert.equal(form.get("box_threshold"), "0.35");
  assert.deepEqual([...form.keys()], ["image", "text_queries", "box_threshold"]);
});

const REFUSED: [string, unknown, string][] = [
  ["an empty body", "", "empty body"],
  ["a blank body", " \n", "empty body"],
  ["no endpoint", {}, "unknown endpoint"],
  ["an endpoint that is not ours", { endpoint: "status" }, "unknown endpoint"],
  ["an inherited name", { endpoint: "constructor" }, "unknown endpoint"],
  ["an endpoint with a path", { endpoint: "../fluency" }, "unknown endpoint"],
  ["an endpoint that is a number", { endpoint: 1 }, "unknown endpoint"],
  ["fluency without audio", { endpoint: "fluency" }, "missing audio"],
  ["fluency with null audio", { endpoint: "fluency", audio: null }, "missing audio"],
  ["fluency with empty audio", { endpoint: "fluency", audio: "" }, "missing audio"],
  ["sketch2real without image", { endpoint: "sketch2real" }, "missing image"],
  ["grounding without image", { endpoint: "grounding", text_queries: "x" }, "missing image"],
];
for (const [what, body, message] of REFUSED) {
  Deno.test(`${what} is 400 '${message}' and never reaches the box`, async () => {
    const { call, sent } = bench();
    const response = await call(body);
    assert.equal(response.status, 400);
    assert.equal(await messageOf(response), message);
    assert.equal(sent.length, 0);
  });
}

for (const body of ["{", "hello", "null", "[]", '"fluency"', "12", '{"endpoint":NaN}', "\xff"]) {
  Deno.test(`the body ${JSON.stringify(body)} is 400 'JSON parse fail: …'`, async () => {
    const { ask } = bench();
    const bytes = Uint8Array.from(body, (char) => char.charCodeAt(0));
    const response = await ask({ method: "POST", body: bytes });
    assert.equal(response.status, 400);
    assert.match(await messageOf(response), /^JSON parse fail: ./);
  });
}

Deno.test("a byte order mark before the JSON does no harm", async () => {
  const { call } = bench();
  const text = `\ufeff${JSON.stringify({ endpoint: "fluency", audio: AUDIO })}`;
  assert.equal((await call(text)).status, 200);
});

Deno.test("async: the box is told so and its 202 comes back", async () => {
  const { call, sent } = bench(() =>
    Response.json({ id: "abc", status: "starting" }, { status: 202 })
  );
  const response = await call({ endpoint: "fluency", audio: AUDIO, async: true });
  assert.equal(response.status, 202);
  assert.deepEqual(await response.json(), { id: "abc", status: "starting" });
  assert.equal(sent[0]!.headers.get("prefer"), "respond-async");
  assert.deepEqual([...(await formOf(sent[0]!)).keys()], ["audio"]);
});

Deno.test("async: false and null mean what leaving it out means", async () => {
  for (const value of [false, null]) {
    const { call, sent } = bench();
    assert.equal((await call({ endpoint: "fluency", audio: AUDIO, async: value })).status, 200);
    assert.equal(sent[0]!.headers.has("prefer"), false);
  }
});

Deno.test("async: anything but true or false is 400", async () => {
  for (const value of ["true", 1, {}]) {
    const response = await bench().call({ endpoint: "fluency", audio: AUDIO, async: value });
    assert.equal(response.status, 400);
    assert.match(await messageOf(response), /'async': it must be true or false/);
  }
});

Deno.test("prediction: the state of an earlier prediction is fetched with GET", async () => {
  const { call, sent } = bench(() => Response.json({ id: "a_B-9", status: "succeeded" }));
  const response = await call({ prediction: "a_B-9" });
  assert.deepEqual(await response.json(), { id: "a_B-9", status: "succeeded" });
  assert.deepEqual([sent[0]!.method, sent[0]!.url], ["GET", `${BOX}/predictions/a_B-9`]);
  assert.equal(sent[0]!.headers.has("content-type"), false);
});

for (const id of ["../keys", "a/b", "a?b", "", "x".repeat(65), 7, {}, "a\nb", "%2e%2e"]) {
  Deno.test(`prediction: the id ${JSON.stringify(id)} never reaches the box`, async () => {
    const { call, sent } = bench();
    assert.equal((await call({ prediction: id })).status, 400);
    assert.equal(sent.length, 0);
  });
}

Deno.test("prediction: together with endpoint it is 400, not a guess", async () => {
  const { call } = bench();
  const response = await call({ endpoint: "fluency", audio: AUDIO, prediction: "abc" });
  assert.equal(response.status, 400);
});

Deno.test("audio_url and image_url are forwarded as the text of audio and image", async () => {
  const url = "https://ref.supabase.co/storage/v1/object/sign/clips/a.wav?token=x.y.z";
  const { call, sent } = bench();
  await call({ endpoint: "fluency", audio_url: url });
  await call({ endpoint: "grounding", image_url: url, text_queries: ["cat"] });
  assert.deepEqual([...(await formOf(sent[0]!))], [["audio", url]]);
  assert.equal((await formOf(sent[1]!)).get("image"), url);
});

for (
  const url of [
    "http://a.example/x",
    "file:///etc/passwd",
    "ftp://a/b",
    "a.wav",
    5,
    "https://u:p@a/b",
  ]
) {
  Deno.test(`audio_url ${url} is 400`, async () => {
    const { call, sent } = bench();
    const response = await call({ endpoint: "fluency", audio_url: url });
    assert.equal(response.status, 400);
    assert.match(await messageOf(response), /'audio_url': it must be an https URL/);
    assert.equal(sent.length, 0);
  });
}

Deno.test("audio and audio_url together are 400, not a guess", async () => {
  const { call } = bench();
  const both = { endpoint: "fluency", audio: AUDIO, audio_url: "https://a.example/b" };
  assert.equal((await call(both)).status, 400);
});

Deno.test("an empty file or URL field counts as not sent", async () => {
  const url = "https://a.example/b";
  const { call, sent } = bench();
  await call({ endpoint: "fluency", audio: AUDIO, audio_url: "", image: "" });
  await call({ endpoint: "fluency", audio: "", audio_url: url });
  assert.deepEqual([...(await formOf(sent[0]!)).keys()], ["audio"]);
  assert.deepEqual([...(await formOf(sent[1]!))], [["audio", url]]);
});

Deno.test("an input whose name is no identifier is 400", async () => {
  const { call } = bench();
  const response = await call({ endpoint: "fluency", audio: AUDIO, 'a"\r\nX: y': "1" });
  assert.equal(response.status, 400);
});

Deno.test("GPU_BACKEND_ENDPOINTS admits a fourth model without a new deployment", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_ENDPOINTS", "echo, caption:photo");
  assert.equal((await call({ endpoint: "echo", text: "hi", clip: AUDIO })).status, 200);
  assert.equal(sent[0]!.url, `${BOX}/echo`);
  assert.equal((await fileOf(sent[0]!, "clip")).file.name, "clip.wav");
  assert.equal(await messageOf(await call({ endpoint: "caption" })), "missing photo");
  await call({ endpoint: "caption", photo_url: "https://a.example/p.png" });
  assert.equal((await formOf(sent[1]!)).get("photo"), "https://a.example/p.png");
});

Deno.test("what the box has published is what it is asked for, and nothing else", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_MODELS", "caption:photo,translate");
  assert.equal((await call({ endpoint: "translate", text: "hi" })).status, 200);
  assert.equal(await messageOf(await call({ endpoint: "caption" })), "missing photo");
  assert.equal((await call({ endpoint: "fluency", audio: AUDIO })).status, 400);
  env.set("GPU_BACKEND_ENDPOINTS", "fluency:audio");
  assert.equal((await call({ endpoint: "fluency", audio: AUDIO })).status, 200);
  assert.equal(sent.length, 2);
  env.set("GPU_BACKEND_MODELS", "caption photo");
  const wrong = await call({ endpoint: "translate" });
  assert.match(await messageOf(wrong), /'GPU_BACKEND_MODELS' must be name or name:field/);
});

Deno.test("an identifier goes to the box and comes back, also on errors", async () => {
  const { call, sent } = bench(() =>
    new Response("{}", { headers: { "content-type": "application/json" } })
  );
  const response = await call({ endpoint: "fluency", audio: AUDIO }, { "x-request-id": "web-1" });
  assert.equal(response.headers.get("x-request-id"), "web-1");
  assert.equal(sent[0]!.headers.get("x-request-id"), "web-1");
  const refused = await call("", { "x-request-id": "not\tvalid" });
  assert.match(refused.headers.get("x-request-id")!, /^id-\d+$/);
});

Deno.test("the log holds no input and no key", async () => {
  const { call, env, log } = bench();
  env.set("GPU_BACKEND_KEY", "secret-key");
  await call({ endpoint: "fluency", audio: AUDIO, prompt: "secret words" });
  await call({ endpoint: "fluency", audio: "secret words" });
  assert.equal(log.length, 2);
  assert.doesNotMatch(JSON.stringify(log), /secret/);
  assert.deepEqual([log[0]!.status, log[0]!.path, log[1]!.code], [
    200,
    "/fluency",
    "invalid_input",
  ]);
});

Deno.test("a body that breaks off is the sender's doing, not an internal error", async () => {
  const { ask, log, sent } = bench();
  const body = new ReadableStream({ pull: (c) => c.error(new TypeError("reset")) });
  assert.equal((await ask({ method: "POST", body })).status, 499);
  assert.equal(log[0]!.code, "client_closed_request");
  assert.equal(sent.length, 0);
});

Deno.test("a failure nobody foresaw is a plain 500 with CORS, its cause only in the log", async () => {
  const { call, log } = bench(okay, {
    after: () => {
      throw new Error("boom at /srv/x");
    },
  });
  const response = await call({ endpoint: "fluency", audio: AUDIO });
  assert.equal(response.status, 500);
  assert.equal(response.headers.get("access-control-allow-origin"), "*");
  assert.equal(await messageOf(response), "internal error");
  assert.match(String(log[0]!.cause), /boom/);
});
