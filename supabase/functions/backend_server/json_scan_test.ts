/** What a body may cost is bounded before any of it is parsed. */

import assert from "node:assert/strict";

import { Refusal } from "./errors.ts";
import { JsonScan, LONG_BYTES } from "./json_scan.ts";
import { bench, messageOf } from "./testing.ts";

const encode = (text: string) => new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;
const MIB = 1024 * 1024;
const FILE = `data:audio/wav;base64,${"A".repeat(20_000)}`;

/** The files of `text`, which arrives in pieces of `step` bytes. */
function filesOf(text: string, step: number, textBytes = MIB): string[] {
  const bytes = encode(text);
  const scan = new JsonScan({ textBytes, depth: 10 });
  for (let end = step; end < bytes.length + step; end += step) {
    scan.feed(bytes, Math.min(end, bytes.length));
  }
  scan.end();
  return scan.files.map(({ start, end }) => new TextDecoder().decode(bytes.subarray(start, end)));
}

const FOUND: [string, string, string[]][] = [
  ["a file", `{"a":"${FILE}","b":"c"}`, [FILE]],
  ["two files", `{"a":"${FILE}","b":["${FILE}"]}`, [FILE, FILE]],
  ["an upper case scheme", `{"a":"DATA:${FILE}"}`, [`DATA:${FILE}`]],
  ["escaped quotes and backslashes", `{"a":"${FILE}\\"\\\\","b":1}`, [`${FILE}\\"\\\\`]],
  ["text that only mentions a file", `{"a":"x ${FILE}","b":"\\"${FILE}"}`, []],
  ["a long text", `{"a":"${"x".repeat(20_000)}"}`, []],
  ["a short file", `{"a":"data:${"x".repeat(LONG_BYTES - 5)}"}`, []],
];
for (const [what, text, files] of FOUND) {
  Deno.test(`finds the files of ${what}, in whatever pieces they come`, () => {
    for (const step of [1, 7, 4096, text.length]) assert.deepEqual(filesOf(text, step), files);
  });
}

Deno.test("files do not count as text, everything else does", () => {
  const body = `{"a":"${FILE}","b":"${"x".repeat(500)}"}`;
  assert.equal(filesOf(body, 64, 520).length, 1);
  assert.throws(() => filesOf(body, 64, 500), (error: Refusal) => error.status === 413);
  assert.throws(() => filesOf(`{"a":"x${FILE}"}`, 64, 500), Refusal);
});

Deno.test("a control character and a string without an end are refused", () => {
  for (const text of ['{"a":"\n"}', `{"a":"${FILE}\t"}`, '{"a":"b', '{"a":"b\\"}', `["${FILE}`]) {
    for (const step of [1, 100_000]) {
      assert.throws(() => filesOf(text, step), (error: Refusal) => error.code === "invalid_json");
    }
  }
});

/** A body of `mib` MiB that comes in pieces, and how much of it has been asked for. */
function streamed(start: string, unit: string, mib: number) {
  const pulled = { mib: 0 };
  const piece = encode(unit.repeat(Math.floor(MIB / unit.length)));
  const body = new ReadableStream({
    start: (c) => c.enqueue(encode(start)),
    pull(c) {
      if (pulled.mib++ < mib) c.enqueue(piece);
      else c.close();
    },
  }, { highWaterMark: 0 });
  return { body, pulled };
}

const NEXT = '{"endpoint":"fluency","audio":"data:audio/wav;base64,AAAA","x":';
const HOSTILE: [string, string, string][] = [
  ["numbers", `${NEXT}[`, "1,"],
  ["empty strings", `${NEXT}[`, '"",'],
  ["arrays", `${NEXT}[`, "[],"],
  ["objects", `${NEXT}[`, "{},"],
  ["members", NEXT.slice(0, -4), '"a":1,'],
  ["short files", `${NEXT}[`, '"data:,",'],
  ["blanks", "", " "],
  ["one number", NEXT, "1"],
  ["one text", `${NEXT}"`, "x"],
  ["one escaped text", `${NEXT}"`, "\\u0041"],
  ["one name", '{"', "x"],
];
for (const [what, start, unit] of HOSTILE) {
  Deno.test(`10: 13 MiB of ${what} are 413 before the third MiB is read`, async () => {
    const { ask, sent } = bench();
    const { body, pulled } = streamed(start, unit, 13);
    const response = await ask({ method: "POST", body });
    assert.equal(response.status, 413);
    assert.match(await messageOf(response), /all but its files must be at most 1\.0 MiB/);
    assert.ok(pulled.mib <= 2, `${pulled.mib} MiB were read`);
    assert.equal(sent.length, 0);
  });
}

Deno.test("10: arrays in arrays are refused at the hundred-and-first level", async () => {
  const nested = (depth: number) => `${NEXT}${"[".repeat(depth)}${"]".repeat(depth)}}`;
  assert.equal((await bench().call(nested(99))).status, 200); // the object is a level too
  const response = await bench().call(nested(100));
  assert.equal(response.status, 400);
  assert.match(await messageOf(response), /at most 100 levels deep/);
});

Deno.test("10: a text that starts like a file is bounded as a text", async () => {
  const { call } = bench();
  const body = { endpoint: "fluency", audio: "data:audio/wav;base64,AAAA" };
  assert.equal((await call({ ...body, x: `data: ${"x".repeat(MIB - 100)}` })).status, 200);
  assert.equal((await call({ ...body, x: `data: ${"x".repeat(MIB)}` })).status, 413);
});

Deno.test("10: just under a MiB of any text is taken", async () => {
  const { call } = bench();
  const body = { endpoint: "fluency", audio: "data:audio/wav;base64,AAAA" };
  assert.equal((await call({ ...body, x: Array(500_000).fill(1) })).status, 200);
  assert.equal((await call({ ...body, x: Array(345_000).fill([]) })).status, 200);
});

Deno.test("every special byte is found at every place among ordinary ones", () => {
  const long = "data:," + "A".repeat(2 * LONG_BYTES);
  for (let shift = 0; shift < 4; shift++) {
    for (let place = 0; place < 8; place++) {
      for (
        const special of ["\u00e9", "\\\\", '\\"', "\\u0041", "~", " ", "!", "#", "[", "]", "^"]
      ) {
        const at = 6 + LONG_BYTES + place;
        const text = long.slice(0, at) + special + long.slice(at);
        const bytes = encode(
          " ".repeat(shift) + JSON.stringify({ a: 1 }).slice(0, -1) + `,"f":"${text}"}`,
        );
        for (const step of [bytes.length, 1000]) {
          const scan = new JsonScan({ textBytes: 1000, depth: 3 });
          for (let end = step; end < bytes.length + step; end += step) {
            scan.feed(bytes, Math.min(end, bytes.length));
          }
          scan.end();
          const [file, ...others] = scan.files;
          assert.deepEqual(others, []);
          assert.equal(new TextDecoder().decode(bytes.subarray(file!.start, file!.end)), text);
          assert.equal(file!.escaped, special.startsWith("\\"));
          assert.equal(file!.foreign, special === "\u00e9");
        }
      }
      const text = long.slice(0, 6 + LONG_BYTES + place) + "\n" + long;
      const scan = new JsonScan({ textBytes: 1000, depth: 3 });
      const bytes = encode(" ".repeat(shift) + `["${text}"]`);
      assert.throws(() => scan.feed(bytes, bytes.length), /control character/);
    }
  }
});
