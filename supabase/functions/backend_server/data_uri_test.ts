/** Data URIs as browsers, phones and people write them. */

import assert from "node:assert/strict";

import { extensionOf, looksLikeDataUri, parseDataUri } from "./data_uri.ts";
import { Refusal } from "./errors.ts";

const text = (uri: string) => new TextDecoder().decode(parseDataUri("audio", uri).bytes);

const READ: [string, string, string][] = [
  ["data:audio/wav;base64,aGVsbG8=", "audio/wav", "hello"],
  ["data:audio/wav;base64,aGVsbG8", "audio/wav", "hello"],
  ["data:audio/wav;base64,aGVs\nbG8=\r\n", "audio/wav", "hello"],
  ["data:audio/wav;base64,aGVsbG8%3D", "audio/wav", "hello"],
  ["DATA:Audio/WAV;BASE64,aGVsbG8=", "Audio/WAV", "hello"],
  ["data:audio/webm;codecs=opus;base64,aGVsbG8=", "audio/webm;codecs=opus", "hello"],
  ["data:video/webm;codecs=vp8,opus;base64,aGVsbG8=", "video/webm;codecs=vp8,opus", "hello"],
  ['data:video/mp4;codecs="avc1,mp4a";base64,aGVsbG8=', 'video/mp4;codecs="avc1,mp4a"', "hello"],
  ["data:;base64,aGVsbG8=", "application/octet-stream", "hello"],
  ["data:,hello", "application/octet-stream", "hello"],
  ["data:text/plain,a%20b%2Cc", "text/plain", "a b,c"],
  ["data:text/plain;charset=utf-8,caf\u00e9%20%F0%9F%90%88", "text/plain;charset=utf-8", "café 🐈"],
  ["data:image/svg+xml,%3Csvg/%3E", "image/svg+xml", "<svg/>"],
  ["data:text/plain,x;base64,aGk=", "text/plain", "x;base64,aGk="],
];
for (const [uri, type, expected] of READ) {
  Deno.test(`reads ${JSON.stringify(uri)}`, () => {
    assert.equal(text(uri), expected);
    assert.equal(parseDataUri("audio", uri).type, type);
  });
}

const REFUSED = [
  "",
  "hello",
  "data:",
  "data:audio/wav;base64",
  "aGVsbG8=",
  "https://a.example/b.wav",
  "data:audio/wav;base64,",
  "data:audio/wav;base64,a",
  "data:audio/wav;base64,aGVsbG8!",
  "data:audio/wav;base64,aGVs=bG8=",
  "data:audio/wav;base64,aGVsbG8==",
  "data:audio/wav;base64,aGVsbA=",
  "data:audio/wav;base64,aGVsbG8====",
  "data:audio/wav;base64,caf\u00e9",
  "data:audio/wav;base64,\u732b\u732b\u732b\u732b",
  "data:audio;base64,aGVsbG8=",
  "data:audio/wav\r\nX-Evil: 1;base64,aGVsbG8=",
  "data:text/plain,50%",
  "data:text/plain,%zz",
];
for (const uri of REFUSED) {
  Deno.test(`refuses ${JSON.stringify(uri)} with a sentence`, () => {
    assert.throws(() => parseDataUri("audio", uri), (error) => {
      assert.ok(error instanceof Refusal);
      assert.equal(error.status, 400);
      assert.match(error.message, /^Cannot read 'audio': it must /);
      return true;
    });
  });
}

Deno.test("base64 of every length and alphabet gives back the bytes it was made of", () => {
  for (let size = 1; size <= 300; size++) {
    const bytes = crypto.getRandomValues(new Uint8Array(size));
    const standard = btoa(String.fromCharCode(...bytes));
    const urlSafe = standard.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    for (const payload of [standard, urlSafe, standard.replaceAll("=", "%3d")]) {
      const uri = `data:application/octet-stream;base64,${payload}`;
      assert.deepEqual(parseDataUri("audio", uri).bytes, bytes);
    }
  }
});

Deno.test("a string is taken for a file only if it names a type or says base64", () => {
  for (const uri of ["data:image/png;base64,AA", "data:text/plain,x", "data:;base64,AA"]) {
    assert.equal(looksLikeDataUri(uri), true, uri);
  }
  for (
    const prose of ["data: a story", "data:,x", "a cat", "my data:image/png;base64,AA", "data:"]
  ) {
    assert.equal(looksLikeDataUri(prose), false, prose);
  }
});

Deno.test("extensions follow the MIME type", () => {
  const cases = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/webm;codecs=opus": "webm",
    "audio/mpeg": "mp3",
    "audio/x-m4a": "m4a",
    "audio/ogg; codecs=opus": "ogg",
    "image/jpeg": "jpg",
    "IMAGE/PNG": "png",
    "image/heic": "heic",
    "image/svg+xml": "svg",
    "application/octet-stream": "bin",
    "application/vnd.oasis.opendocument.text": "bin",
    "x/constructor": "bin",
  };
  for (const [type, extension] of Object.entries(cases)) assert.equal(extensionOf(type), extension);
});
