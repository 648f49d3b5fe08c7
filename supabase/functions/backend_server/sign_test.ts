/** The signature, against the vectors the router is tested with too. */

import assert from "node:assert/strict";

import { signatureHeaders } from "./sign.ts";
import { bench, WAV } from "./testing.ts";

interface Vector {
  name: string;
  key: string;
  key_id: string | null;
  timestamp: string;
  nonce: string;
  method: string;
  path: string;
  content_type: string;
  body: string;
  string_to_sign: string;
  signature: string;
}

const file = new URL("../../../tests/edge/signature_vectors.json", import.meta.url);
const { vectors }: { vectors: Vector[] } = JSON.parse(await Deno.readTextFile(file));

for (const vector of vectors) {
  Deno.test(`signs the vector '${vector.name}'`, async () => {
    const { key, key_id, content_type, body, ...rest } = vector;
    const bytes = new TextEncoder().encode(body);
    const pieces = [bytes.subarray(0, 3), bytes.subarray(3)];
    const toSign = { ...rest, contentType: content_type, pieces };
    assert.deepEqual(await signatureHeaders(toSign, key, key_id ?? undefined), {
      ...(key_id === null ? {} : { "X-Callme-Key-Id": key_id }),
      "X-Callme-Timestamp": vector.timestamp,
      "X-Callme-Nonce": vector.nonce,
      "X-Callme-Content-Sha256": vector.string_to_sign.split("\n").at(-1)!,
      "X-Callme-Signature": vector.signature,
    });
  });
}

const CALL = { endpoint: "fluency", audio: `data:audio/wav;base64,${WAV}` };

Deno.test("what is signed is what is sent: path, content type and every byte", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_URL", "https://box.example/prefix/").set("GPU_BACKEND_KEY", "k");
  await call(CALL);
  const { headers, body, url } = sent[0]!;
  assert.equal(url, "https://box.example/prefix/fluency");
  const expected = await signatureHeaders(
    {
      method: "POST",
      path: "/prefix/fluency",
      contentType: headers.get("content-type")!,
      pieces: [body],
      timestamp: "1790000000",
      nonce: headers.get("x-callme-nonce")!,
    },
    "k",
    undefined,
  );
  assert.equal(headers.get("x-callme-signature"), expected["X-Callme-Signature"]);
  assert.equal(headers.get("x-callme-content-sha256"), expected["X-Callme-Content-Sha256"]);
  assert.equal(headers.get("x-callme-timestamp"), "1790000000");
  assert.equal(headers.has("x-callme-key-id"), false);
  assert.equal(headers.has("authorization"), false);
});

Deno.test("no nonce is used twice", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_KEY", "k");
  await call(CALL);
  await call(CALL);
  assert.notEqual(sent[0]!.headers.get("x-callme-nonce"), sent[1]!.headers.get("x-callme-nonce"));
});

Deno.test("a look at a prediction is signed with an empty body and content type", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_KEY", "k").set("GPU_BACKEND_KEY_ID", "web");
  await call({ prediction: "abc" });
  const nonce = sent[0]!.headers.get("x-callme-nonce")!;
  const expected = await signatureHeaders(
    {
      method: "GET",
      path: "/predictions/abc",
      contentType: "",
      pieces: [],
      timestamp: "1790000000",
      nonce,
    },
    "k",
    "web",
  );
  for (const [name, value] of Object.entries(expected)) {
    assert.equal(sent[0]!.headers.get(name), value);
  }
});

Deno.test("GPU_BACKEND_AUTH=bearer sends the key as a bearer token, and only over https", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_KEY", "k").set("GPU_BACKEND_AUTH", "bearer");
  await call(CALL);
  assert.equal(sent[0]!.headers.get("authorization"), "Bearer k");
  assert.equal(sent[0]!.headers.has("x-callme-signature"), false);
  env.set("GPU_BACKEND_URL", "http://box.example");
  assert.equal((await call(CALL)).status, 503);
  env.set("GPU_BACKEND_URL", "http://127.0.0.1:7777");
  assert.equal((await call(CALL)).status, 200);
  assert.equal(sent.length, 2);
});
