/** Long strings are set aside as bytes, and nobody can tell from the result. */

import assert from "node:assert/strict";

import { Refusal } from "./errors.ts";
import { JsonScan } from "./json_scan.ts";
import { LongString, parseObject, RawJson, type Value } from "./long_strings.ts";
import { bench, fileOf, formOf, messageOf } from "./testing.ts";

const encode = (text: string) => new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const LONG = "x".repeat(20_000);
const FILE = `data:${LONG}`;
const CLIP = crypto.getRandomValues(new Uint8Array(50_000));
const BASE64 = btoa(String.fromCharCode(...CLIP));

function parse(bytes: Uint8Array<ArrayBuffer>): Map<string, Value> {
  const scan = new JsonScan({ textBytes: 10_000_000, depth: 20 });
  scan.feed(bytes, bytes.length);
  return parseObject(bytes, scan.files);
}

/** What a value stands for, as JSON.parse would say it. */
function plain(value: Value): unknown {
  if (value instanceof LongString) return decode(value.bytes());
  return value instanceof RawJson ? JSON.parse(decode(value.bytes)) : value;
}

const parsed = (text: string) =>
  Object.fromEntries([...parse(encode(text))].map(([name, value]) => [name, plain(value)]));

Deno.test("a parsed object equals what JSON.parse makes of it", () => {
  const documents = [
    {},
    { a: FILE, b: LONG },
    { a: `${FILE}"\\"\\\\`, b: 1 },
    { a: `data:${"\\".repeat(20_000)}`, b: `data:${'"'.repeat(20_000)}`, c: "" },
    { a: [FILE, { d: `data:é猫🐈\n${LONG}` }, null, true], b: { c: {} }, d: [] },
    { [LONG]: LONG, "": 0, 'a"b\\': -1.5e3, t: true, f: false },
    { a: `data:/é猫🐈\b\f\n\r\t\u0001${LONG}` },
  ];
  for (const document of documents) {
    for (const indent of [0, 2]) {
      const text = JSON.stringify(document, null, indent);
      assert.deepEqual(parsed(text), document);
    }
  }
});

Deno.test("escapes of a long file are undone, half a surrogate pair as TextEncoder does it", () => {
  const tail = "\\ud83d\\udc08\\u00E9\\u732b\\/\\ud83d\\ud83dx\\udc08";
  assert.deepEqual(parsed(`{"a":"${FILE}${tail}"}`), { a: `${FILE}🐈é猫/\ufffd\ufffdx\ufffd` });
});

Deno.test("random objects equal what JSON.parse makes of them", () => {
  let seed = 7;
  const random = (below: number) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % below;
  const pieces = ["a", '"', "\\", "/", "é", "猫", "🐈", "\n", "\u0001", FILE, "x".repeat(9000)];
  const text = () =>
    Array.from({ length: random(5) }, () => pieces[random(pieces.length)]).join("");
  const make = (depth: number): unknown => {
    const kind = random(depth > 2 ? 3 : 5);
    if (kind < 2) return text();
    if (kind === 2) return [0.5, -3, true, false][random(4)];
    const items = Array.from({ length: random(4) }, () => make(depth + 1));
    return kind === 3 ? items : Object.fromEntries(items.map((item) => [text(), item]));
  };
  for (let i = 0; i < 300; i++) {
    const document = { [`k${i}`]: make(0), "last": make(0) };
    assert.deepEqual(parsed(JSON.stringify(document)), document);
  }
});

Deno.test("of members with one name the last counts, and null is as good as absent", () => {
  assert.deepEqual(parsed('{"a":1,"b":null,"a":[2],"c":3,"c":null}'), { a: [2] });
});

Deno.test("what is no object is named", () => {
  const kinds = {
    "[]": "array",
    "null": "null",
    "true": "boolean",
    "-1": "number",
    '"a"': "string",
  };
  for (const [text, kind] of Object.entries(kinds)) {
    assert.throws(() => parse(encode(` ${text}`)), new RegExp(`must be an object, got ${kind}`));
  }
});

Deno.test("more members than the box has parts are refused, also under one name", () => {
  const text = `{${Array(201).fill('"a":1').join(",")}}`;
  assert.throws(() => parse(encode(text)), /at most 200 inputs/);
});

Deno.test("a long file is a view of the body, not a copy of it", () => {
  const bytes = encode(`{"a":"${FILE}"}`);
  const a = parse(bytes).get("a") as LongString;
  assert.ok(a instanceof LongString);
  assert.equal(a.bytes().buffer, bytes.buffer);
});

const BROKEN = {
  "no closing quote": `{"a":"${LONG}`,
  "an escaped closing quote": `{"a":"${LONG}\\"}`,
  "a raw line break": `{"endpoint":"fluency","audio":"data:audio/wav;base64,${BASE64}\n"}`,
  "a bad escape": `{"endpoint":"fluency","audio":"data:audio/wav;base64,${BASE64}\\x"}`,
  "half an escape": `{"endpoint":"fluency","audio":"data:audio/wav;base64,${BASE64}\\u12"}`,
  "a file without an end": `{"endpoint":"fluency","audio":"data:audio/wav;base64,${BASE64}`,
  "two values": `{"a":"${LONG}" "b"}`,
};
for (const [what, text] of Object.entries(BROKEN)) {
  Deno.test(`a body with ${what} is 400 'JSON parse fail: …'`, async () => {
    const response = await bench().call(text);
    assert.equal(response.status, 400);
    assert.match(await messageOf(response), /^JSON parse fail: /);
  });
}

Deno.test("broken UTF-8 in a long file is a 400, also where a character is cut off", () => {
  for (const at of [9000, encode(`{"a":"${FILE}`).length - 1]) {
    const bytes = encode(`{"a":"${FILE}"}`);
    bytes[at] = 0xe7;
    assert.throws(() => parse(bytes), Refusal);
  }
});

const SPELLINGS = {
  "as browsers write it": BASE64,
  "with the slashes escaped, as PHP writes it": BASE64.replaceAll("/", "\\/"),
  "with escaped line breaks": BASE64.replace(/.{76}/g, "$&\\r\\n"),
  "with letters escaped": BASE64.replaceAll("A", "\\u0041"),
  "url-safe and unpadded": BASE64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""),
  "percent-encoded": BASE64.replaceAll("+", "%2B").replaceAll("/", "%2f").replaceAll("=", "%3D"),
  "with spaces": BASE64.replace(/.{76}/g, "$& "),
};
for (const [what, payload] of Object.entries(SPELLINGS)) {
  for (const head of ["data:audio/wav;base64,", "data:audio\\/wav; base64,"]) {
    Deno.test(`a large file ${what} after '${head}' arrives to the byte`, async () => {
      const { call, sent } = bench();
      const response = await call(`{"endpoint":"fluency","audio":"${head}${payload}"}`);
      assert.equal(response.status, 200);
      const { file, bytes } = await fileOf(sent[0]!, "audio");
      assert.equal(file.type, "audio/wav");
      assert.deepEqual(bytes, CLIP);
    });
  }
}

Deno.test("a large file that is not base64 is a 400", async () => {
  for (
    const payload of [`${BASE64}!`, `${BASE64}é`, `${BASE64.replace(/=*$/, "")}=A`, `${LONG}x`]
  ) {
    const response = await bench().call({
      endpoint: "fluency",
      audio: `data:audio/wav;base64,${payload}`,
    });
    assert.equal(response.status, 400, payload.slice(-5));
    assert.match(await messageOf(response), /^Cannot read 'audio': it must be /);
  }
});

Deno.test("a large percent-encoded file without base64 arrives too", async () => {
  const { call, sent } = bench();
  const svg = `<svg>${"é%".repeat(10_000)}</svg>`;
  const image = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  await call({ endpoint: "sketch2real", image });
  assert.equal(new TextDecoder().decode((await fileOf(sent[0]!, "image")).bytes), svg);
});

Deno.test("a long prompt, and a long text within an array, arrive as they are", async () => {
  const { call, sent } = bench();
  const prompt = `"é猫"\n\\${LONG}`;
  await call({
    endpoint: "grounding",
    image: "data:image/png;base64,AAAA",
    prompt,
    text_queries: [prompt],
  });
  const form = await formOf(sent[0]!);
  assert.equal(form.get("prompt"), prompt);
  assert.deepEqual(JSON.parse(String(form.get("text_queries"))), [prompt]);
});

Deno.test("long values where short ones belong are refused, not taken literally", async () => {
  const { call, sent } = bench();
  for (
    const body of [{ endpoint: LONG }, { prediction: LONG }, { [LONG]: "x", endpoint: "fluency" }]
  ) {
    assert.equal((await call(body)).status, 400);
  }
  const flagged = { endpoint: "fluency", audio: "data:audio/wav;base64,AAAA", async: LONG };
  assert.match(await messageOf(await call(flagged)), /must be true or false, got string/);
  assert.equal(sent.length, 0);
});
