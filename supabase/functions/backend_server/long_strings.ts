/**
 * JSON whose files stay bytes.
 *
 * A 10 MiB file is 14 MB of base64. As text it would be held by the pieces that came in, by the
 * joined text and by the parsed string, in a worker that shares 256 MB among its requests. So long
 * strings stay where they arrived, and `JSON.parse` sees short stand-ins for them.
 */

import { Refusal } from "./errors.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const BLANKS: readonly number[] = [0x20, 0x09, 0x0a, 0x0d];
const LONG_BYTES = 8192;

/** A string of the JSON as the bytes between its quotes: escapes unread, UTF-8 unchecked. */
export class LongString {
  readonly bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
  }

  /** The string itself. Throws `invalid_json` where it is not JSON or not UTF-8. */
  text(): string {
    try {
      return JSON.parse(`"${new TextDecoder("utf-8", { fatal: true }).decode(this.bytes)}"`);
    } catch (error) {
      throw notJson(error);
    }
  }

  /** The first `chars` characters, without decoding the rest if that can be helped. */
  head(chars: number): string {
    const bytes = this.bytes.subarray(0, chars);
    const plain = bytes.every((byte) => byte >= 0x20 && byte < 0x80 && byte !== BACKSLASH);
    return plain ? new TextDecoder().decode(bytes) : this.text().slice(0, chars);
  }

  /** How `JSON.stringify` sees it. */
  toJSON(): string {
    return this.text();
  }
}

/**
 * Parses UTF-8 JSON. Values that are strings of more than a few kilobytes become `LongString`,
 * views of `bytes`; numbers become raw JSON, which `JSON.stringify` writes with the digits they
 * came with. Throws `invalid_json`.
 */
export function parseJsonBytes(bytes: Uint8Array<ArrayBuffer>): unknown {
  const long = new Map<string, LongString>();
  try {
    return richJson.parse(setLongStringsAside(bytes, long), (_key, value, { source }) => {
      if (typeof value === "number") return richJson.rawJSON(source);
      return typeof value === "string" ? long.get(value) ?? value : value;
    });
  } catch (error) {
    throw notJson(error);
  }
}

/** Whether a parsed value was a number. */
export function isNumber(value: unknown): boolean {
  return richJson.isRawJSON(value);
}

/** Whether there is nothing but white space. */
export function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => BLANKS.includes(byte));
}

function setLongStringsAside(
  bytes: Uint8Array<ArrayBuffer>,
  long: Map<string, LongString>,
): string {
  const mark = `long-${crypto.randomUUID()}-`; // no body can hold it, by chance or on purpose
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "", copied = 0;
  for (let open = bytes.indexOf(QUOTE); open >= 0;) {
    const close = closingQuote(bytes, open + 1);
    if (close < 0) break; // unterminated: JSON.parse will say so
    if (close - open > LONG_BYTES && !isKey(bytes, close + 1)) {
      const standIn = mark + long.size;
      long.set(standIn, new LongString(bytes.subarray(open + 1, close)));
      text += decoder.decode(bytes.subarray(copied, open + 1), { stream: true }) + standIn;
      copied = close;
    }
    open = bytes.indexOf(QUOTE, close + 1);
  }
  return text + decoder.decode(bytes.subarray(copied));
}

function closingQuote(bytes: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(QUOTE, from); at >= 0; at = bytes.indexOf(QUOTE, at + 1)) {
    let backslashes = 0;
    while (at - backslashes > from && bytes[at - backslashes - 1] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at;
  }
  return -1;
}

function isKey(bytes: Uint8Array, after: number): boolean {
  let at = after;
  while (BLANKS.includes(bytes[at] ?? 0)) at++;
  return bytes[at] === COLON;
}

function notJson(error: unknown): Refusal {
  return new Refusal("invalid_json", `JSON parse fail: ${(error as Error).message}`);
}

/** What ECMAScript 2026 adds to JSON and TypeScript's types lack: the source text of numbers. */
const richJson = JSON as unknown as {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source: string }) => unknown,
  ): unknown;
  rawJSON(source: string): unknown;
  isRawJSON(value: unknown): boolean;
};
