/**
 * Escapes of JSON and of URLs, undone where they stand: what is written never overtakes what is
 * read. As text a file would need its size several times over; in place it needs nothing.
 */

import { BACKSLASH, notJson } from "./json_scan.ts";

const PERCENT = 0x25;
const LETTER_U = 0x75;
const SIMPLE: Record<string, string> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  "b": "\b",
  "f": "\f",
  "n": "\n",
  "r": "\r",
  "t": "\t",
};
const SIMPLE_BYTES = new Uint8Array(256);
for (const [letter, char] of Object.entries(SIMPLE)) {
  SIMPLE_BYTES[letter.charCodeAt(0)] = char.charCodeAt(0);
}
const NO_DIGIT = 255;
const HEX = new Uint8Array(256).fill(NO_DIGIT);
for (let i = 0; i < 16; i++) {
  HEX[i.toString(16).charCodeAt(0)] = i;
  HEX[i.toString(16).toUpperCase().charCodeAt(0)] = i;
}
const UNPAIRED = 0xfffd; // what TextEncoder writes for half of a surrogate pair

/** The string that stands between two quotes of JSON. Throws `invalid_json`. */
export function unescapeJson(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  let size = 0;
  for (let at = 0; at < bytes.length;) {
    const byte = bytes[at]!;
    if (byte !== BACKSLASH) {
      bytes[size++] = byte;
      at++;
    } else if (bytes[at + 1] !== LETTER_U) {
      const plain = SIMPLE_BYTES[bytes[at + 1] ?? 0]!;
      if (plain === 0) throw badEscape(at);
      bytes[size++] = plain;
      at += 2;
    } else {
      const [char, length] = readUnicode(bytes, at);
      size = writeUtf8(bytes, size, char);
      at += length;
    }
  }
  return bytes.subarray(0, size);
}

/** The code point of `\uXXXX`, or of a surrogate pair of two, and how many bytes it stands in. */
function readUnicode(bytes: Uint8Array, at: number): [codePoint: number, bytes: number] {
  const unit = readUnit(bytes, at);
  if (unit < 0xd800 || unit > 0xdfff) return [unit, 6];
  const isPair = unit < 0xdc00 && bytes[at + 6] === BACKSLASH && bytes[at + 7] === LETTER_U;
  const low = isPair ? readUnit(bytes, at + 6) : 0;
  if (low < 0xdc00 || low > 0xdfff) return [UNPAIRED, 6];
  return [0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), 12];
}

function readUnit(bytes: Uint8Array, at: number): number {
  let unit = 0;
  for (let i = at + 2; i < at + 6; i++) {
    const digit = HEX[bytes[i] ?? 0]!;
    if (digit === NO_DIGIT) throw badEscape(at);
    unit = unit * 16 + digit;
  }
  return unit;
}

function writeUtf8(bytes: Uint8Array, at: number, char: number): number {
  if (char < 0x80) {
    bytes[at] = char;
    return at + 1;
  }
  const more = char < 0x800 ? 1 : char < 0x10000 ? 2 : 3;
  bytes[at] = ((0xf00 >> (more + 1)) & 0xff) | (char >> (6 * more));
  for (let i = 1; i <= more; i++) bytes[at + i] = 0x80 | ((char >> (6 * (more - i))) & 0x3f);
  return at + more + 1;
}

/** Percent-decoding; null where a % is not followed by two hexadecimal digits. */
export function unescapePercent(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | null {
  let size = 0;
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== PERCENT) {
      bytes[size++] = bytes[at]!;
      continue;
    }
    const [high, low] = [HEX[bytes[at + 1] ?? 0]!, HEX[bytes[at + 2] ?? 0]!];
    if (high === NO_DIGIT || low === NO_DIGIT) return null;
    bytes[size++] = high * 16 + low;
    at += 2;
  }
  return bytes.subarray(0, size);
}

function badEscape(at: number) {
  return notJson(`bad escape in a string at position ${at}`);
}
