/**
 * The first look at JSON, while it arrives: it bounds what is not a file.
 *
 * A worker has 256 MB and 2 s of CPU. `JSON.parse` of 12 MB of `1,` takes 1.1 GB, so nothing is
 * parsed before this has counted it. In valid JSON an unescaped quote opens or closes a string;
 * between the two everything is text. So one pass over the bytes, which keeps nothing, finds the
 * strings that begin with `data:`. They may be as long as the body; everything else together may
 * have `textBytes`. A body that exceeds that is refused before the rest of it is read.
 */

import { Refusal } from "./errors.ts";

/** The bytes between the quotes of a long string that begins with `data:`. */
export interface Span {
  start: number;
  end: number;
  /** Holds a backslash. */
  escaped: boolean;
  /** Holds a byte beyond ASCII: UTF-8, not yet checked. */
  foreign: boolean;
}

/** What a document may hold beside its files. */
export interface Bounds {
  textBytes: number;
  depth: number;
}

/** A shorter file is counted as text and parsed with it. */
export const LONG_BYTES = 8192;

export const QUOTE = 0x22;
export const BACKSLASH = 0x5c;
const DATA = [0x64, 0x61, 0x74, 0x61, 0x3a]; // data:
const [ORDINARY, CONTROL, FOREIGN, END, ESCAPE] = [0, 1, 2, 4, 8];
const OPENING = "[{", CLOSING = "]}";
const OPENS = 1, CLOSES = 2, QUOTES = 3;
/** What a byte means within a string, and what between strings. */
const INSIDE = new Uint8Array(256).fill(FOREIGN, 0x80).fill(CONTROL, 0, 0x20);
const OUTSIDE = new Uint8Array(256);
INSIDE[QUOTE] = END;
INSIDE[BACKSLASH] = ESCAPE;
OUTSIDE[QUOTE] = QUOTES;
for (const char of OPENING) OUTSIDE[char.charCodeAt(0)] = OPENS;
for (const char of CLOSING) OUTSIDE[char.charCodeAt(0)] = CLOSES;

/** Reads a document once, from front to back, in as many steps as it takes to arrive. */
export class JsonScan {
  /** The long `data:` strings that have ended, in the order in which they stand. */
  readonly files: Span[] = [];
  readonly #bounds: Bounds;
  #at = 0;
  #depth = 0;
  #fileBytes = 0;
  /** Where the string begins that is being read; -1 between strings. */
  #start = -1;
  #isEscaped = false;
  #seen = 0;
  #view: Int32Array = new Int32Array();
  #viewed: ArrayBufferLike | null = null;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /**
   * Reads on to `end`; the bytes before it must be those of the calls before.
   * Throws `payload_too_large` for too much text, `invalid_json` for too much depth and for a
   * control character within a string.
   */
  feed(bytes: Uint8Array, end: number): void {
    let at = this.#at;
    while (at < end) {
      at = this.#start < 0 ? this.#between(bytes, at, end) : this.#within(bytes, at, end);
    }
    this.#at = end;
    const open = this.#start >= 0 && isData(bytes, this.#start, end) ? end - this.#start : 0;
    const text = end - this.#fileBytes - open; // one that ends soon will count
    if (text > this.#bounds.textBytes) throw tooMuchText(this.#bounds.textBytes);
  }

  /** Throws `invalid_json` if a string has begun and not ended: of that nothing was bounded. */
  end(): void {
    if (this.#start >= 0) throw notJson(`the string at position ${this.#start} has no end`);
  }

  /** Reads to the next string; returns where that begins. */
  #between(bytes: Uint8Array, from: number, end: number): number {
    for (let at = from; at < end; at++) {
      const meaning = OUTSIDE[bytes[at]!];
      if (meaning === 0) continue;
      if (meaning === QUOTES) {
        this.#start = at + 1;
        this.#seen = ORDINARY;
        return at + 1;
      }
      if (meaning === CLOSES) this.#depth--;
      else if (++this.#depth > this.#bounds.depth) throw tooDeep(this.#bounds.depth);
    }
    return end;
  }

  /** Reads to the end of the string; returns what comes after its quote. */
  #within(bytes: Uint8Array, from: number, end: number): number {
    let seen = this.#seen, isEscaped = this.#isEscaped;
    for (let at = from; at < end; at++) {
      if (!isEscaped && at % 4 === 0) {
        at = skipOrdinary(this.#words(bytes), at, end);
        if (at >= end) break;
      }
      const meaning = INSIDE[bytes[at]!]!;
      if (isEscaped) isEscaped = false; // whatever it is, it does not end the string
      else if (meaning === ESCAPE) isEscaped = true;
      else if (meaning === END) {
        this.#close(bytes, at, seen);
        return at + 1;
      }
      seen |= meaning;
      if (meaning === CONTROL) throw notJson(`control character in a string at position ${at}`);
    }
    this.#seen = seen;
    this.#isEscaped = isEscaped;
    return end;
  }

  /** `bytes` as words of four; none of an array that does not begin at one. */
  #words(bytes: Uint8Array): Int32Array {
    if (this.#viewed !== bytes.buffer) {
      const isAligned = bytes.byteOffset === 0;
      const count = isAligned ? bytes.buffer.byteLength >> 2 : 0;
      this.#view = new Int32Array(bytes.buffer, 0, count);
      this.#viewed = bytes.buffer;
    }
    return this.#view;
  }

  #close(bytes: Uint8Array, end: number, seen: number): void {
    const start = this.#start;
    this.#start = -1;
    this.#isEscaped = false;
    if (end - start <= LONG_BYTES || !isData(bytes, start, end)) return;
    const [escaped, foreign] = [(seen & ESCAPE) !== 0, (seen & FOREIGN) !== 0];
    this.files.push({ start, end, escaped, foreign });
    this.#fileBytes += end - start;
  }
}

const [HIGH_BITS, ONES] = [0x80808080 | 0, 0x01010101];
const [QUOTES_4, BACKSLASHES_4, BLANKS_4] = [QUOTE * ONES, BACKSLASH * ONES, 0x20 * ONES];

/**
 * Where the first word of four bytes begins that are not all ordinary, from `from` on, which is a
 * multiple of four; or where the whole words before `end` end. Nearly all of a file is skipped so,
 * in a third of the time that one byte after the other takes.
 */
function skipOrdinary(words: Int32Array, from: number, end: number): number {
  const last = Math.min(end >> 2, words.length);
  let at = from >> 2;
  for (; at < last; at++) {
    const word = words[at]!;
    const quotes = word ^ QUOTES_4, backslashes = word ^ BACKSLASHES_4;
    // A high bit is set where a byte is 0x80 or more, under 0x20, a quote, a backslash:
    // https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord
    const special = word |
      ((word - BLANKS_4) & ~word) |
      ((quotes - ONES) & ~quotes) |
      ((backslashes - ONES) & ~backslashes);
    if ((special & HIGH_BITS) !== 0) break;
  }
  return at << 2;
}

function isData(bytes: Uint8Array, start: number, end: number): boolean {
  return start + DATA.length <= end && DATA.every((byte, i) => (bytes[start + i]! | 0x20) === byte);
}

/** 400 for a body that is not JSON. */
export function notJson(why: unknown): Refusal {
  const reason = why instanceof Error ? why.message : String(why);
  return new Refusal("invalid_json", `JSON parse fail: ${reason}`);
}

function tooDeep(depth: number): Refusal {
  return notJson(`it must be nested at most ${depth} levels deep`);
}

/** 413 for what is no file and yet over `maxBytes`. */
export function tooMuchText(maxBytes: number): Refusal {
  const mib = (maxBytes / 1024 / 1024).toFixed(1);
  const message = `Cannot take the request: all but its files must be at most ${mib} MiB`;
  return new Refusal("payload_too_large", message, { details: { max_bytes: maxBytes } });
}
