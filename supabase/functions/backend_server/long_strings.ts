/**
 * JSON whose files stay bytes.
 *
 * A 10 MiB file is 14 MB of base64. As text it would be held by the pieces that came in, by the
 * joined text and by the parsed string, in a worker that shares 256 MB among its requests. So the
 * files that `JsonScan` has found stay where they arrived, and `JSON.parse` never sees them. Nor
 * does it build the other inputs: the box gets them as they were written, so it is enough to know
 * where each begins and ends.
 */

import { Refusal } from "./errors.ts";
import { BACKSLASH, notJson, QUOTE, type Span } from "./json_scan.ts";
import { unescapeJson } from "./unescape.ts";

const COLON = 0x3a;
const COMMA = 0x2c;
const BLANKS: readonly number[] = [0x20, 0x09, 0x0a, 0x0d];
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];
const PIECE_BYTES = 64 * 1024;
// The box takes 100 parts. Nulls and names that come again are counted too: each costs time.
const MAX_MEMBERS = 200;
/** The JSON type of a value, by its first character; what is not listed is a number. */
const KINDS: Record<string, Kind> = {
  '"': "string",
  "[": "array",
  "{": "object",
  "t": "boolean",
  "f": "boolean",
  "n": "null",
};

export type Kind = "string" | "array" | "object" | "boolean" | "null" | "number";

/** A value of the body: a string, a long file, or anything else as the JSON that it was. */
export type Value = string | LongString | RawJson;

/** A long `data:` string of the body as a view of its bytes. */
export class LongString {
  #bytes: Uint8Array<ArrayBuffer>;
  #escaped: boolean;

  /** Throws `invalid_json` where `foreign` bytes are not UTF-8. */
  constructor(bytes: Uint8Array<ArrayBuffer>, span: Pick<Span, "escaped" | "foreign">) {
    this.#bytes = bytes;
    this.#escaped = span.escaped;
    if (span.foreign) checkUtf8(bytes);
  }

  /** The string in UTF-8, where it lies. Throws `invalid_json` for an escape that is none. */
  bytes(): Uint8Array<ArrayBuffer> {
    if (this.#escaped) {
      this.#bytes = unescapeJson(this.#bytes);
      this.#escaped = false;
    }
    return this.#bytes;
  }
}

/** A value that is no string, in the bytes that it came in: numbers keep their digits. */
export class RawJson {
  readonly kind: Kind;
  readonly bytes: Uint8Array<ArrayBuffer>;

  constructor(kind: Kind, bytes: Uint8Array<ArrayBuffer>) {
    this.kind = kind;
    this.bytes = bytes;
  }
}

/**
 * The members of the JSON object `bytes`, whose long files are `files`. Of members with one name
 * the last counts, and null counts as absent. Throws `invalid_json`, and `invalid_input` for more
 * than 200.
 */
export function parseObject(
  bytes: Uint8Array<ArrayBuffer>,
  files: readonly Span[],
): Map<string, Value> {
  checkJson(bytes, files);
  const reader = new Reader(bytes, files);
  const kind = reader.peekKind();
  if (kind !== "object") throw notJson(`the body must be an object, got ${kind}`);
  const members = new Map<string, Value>();
  let count = 0;
  for (const [name, value] of reader.members()) {
    if (++count > MAX_MEMBERS) {
      const message = `Cannot read the request: it must have at most ${MAX_MEMBERS} inputs`;
      throw new Refusal("invalid_input", message);
    }
    if (value === null) members.delete(name);
    else members.set(name, value);
  }
  return members;
}

/** Throws `invalid_json` unless `bytes`, their `files` left out, are JSON in UTF-8. */
export function checkJson(bytes: Uint8Array, files: readonly Span[]): void {
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let text = "", from = 0;
    for (const { start, end } of files) {
      text += decoder.decode(bytes.subarray(from, start), { stream: true });
      from = end;
    }
    JSON.parse(text + decoder.decode(bytes.subarray(from)));
  } catch (error) {
    throw notJson(error);
  }
}

/** Throws `invalid_json` unless `bytes` are UTF-8; never holds more than a piece as text. */
export function checkUtf8(bytes: Uint8Array): void {
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      decoder.decode(bytes.subarray(at, at + PIECE_BYTES), { stream: true });
    }
    decoder.decode();
  } catch (error) {
    throw notJson(error);
  }
}

/** Whether there is nothing but white space. */
export function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => BLANKS.includes(byte));
}

/** Walks over JSON that is known to be right. */
class Reader {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #files: Map<number, Span>;
  #at: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, files: readonly Span[]) {
    this.#bytes = bytes;
    this.#files = new Map(files.map((span) => [span.start, span]));
    this.#at = BYTE_ORDER_MARK.every((byte, i) => bytes[i] === byte) ? BYTE_ORDER_MARK.length : 0;
  }

  /** The type of the value that comes next. */
  peekKind(): Kind {
    this.#skip(BLANKS);
    return KINDS[String.fromCharCode(this.#bytes[this.#at]!)] ?? "number";
  }

  /** The members of the object that comes next, with null for a null. */
  *members(): Generator<[string, Value | null]> {
    this.#at++; // the brace
    while (this.#skip([...BLANKS, COMMA]) === QUOTE) {
      const name = this.#string();
      this.#skip([...BLANKS, COLON]);
      // A long name that looks like a file has not been looked into: it is nobody's name.
      yield [typeof name === "string" ? name : "", this.#value()];
    }
  }

  #value(): Value | null {
    const kind = this.peekKind();
    if (kind === "string") return this.#string();
    const start = this.#at;
    if (kind === "array" || kind === "object") this.#skipNested();
    else while (!isEnd(this.#bytes[this.#at])) this.#at++;
    return kind === "null" ? null : new RawJson(kind, this.#bytes.subarray(start, this.#at));
  }

  #string(): string | LongString {
    const start = this.#at + 1;
    const span = this.#files.get(start);
    const end = this.#skipString();
    if (span) return new LongString(this.#bytes.subarray(start, end), span);
    const token = new TextDecoder().decode(this.#bytes.subarray(start - 1, end + 1));
    return JSON.parse(token) as string;
  }

  #skipNested(): void {
    let depth = 0;
    do {
      const char = String.fromCharCode(this.#bytes[this.#at]!);
      if (char === '"') this.#skipString();
      else this.#at++;
      if (char === "[" || char === "{") depth++;
      if (char === "]" || char === "}") depth--;
    } while (depth > 0);
  }

  /** Goes behind the string that comes next; returns where its closing quote stands. */
  #skipString(): number {
    let end = this.#files.get(this.#at + 1)?.end ?? this.#at + 1;
    for (; this.#bytes[end] !== QUOTE; end++) if (this.#bytes[end] === BACKSLASH) end++;
    this.#at = end + 1;
    return end;
  }

  #skip(skipped: readonly number[]): number | undefined {
    while (skipped.includes(this.#bytes[this.#at] ?? -1)) this.#at++;
    return this.#bytes[this.#at];
  }
}

function isEnd(byte: number | undefined): boolean {
  return byte === undefined || byte === COMMA || byte === 0x5d || byte === 0x7d ||
    BLANKS.includes(byte);
}
