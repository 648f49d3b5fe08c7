/**
 * What a client wants to run, read without building its input: of 256 KiB of small objects that
 * takes 100 ms of processor. The input goes on as it was written, and the database, which reads it
 * in any case, judges whether it is JSON. Here only its end is found.
 */

import { Refusal } from "../backend_server/errors.ts";
import { BACKSLASH, notJson, QUOTE } from "../backend_server/json_scan.ts";

type Bytes = Uint8Array<ArrayBuffer>;

export interface Wanted {
  model: string;
  key: string | undefined;
  /** JSON, as the client wrote it. */
  input: string;
  /** The row to insert, as JSON. */
  row: Bytes;
}

/** Of arrays and objects in each other. The database writes no more than some thousands. */
const MAX_DEPTH = 100;
const MAX_MEMBERS = 200;
const COMMA = 0x2c, COLON = 0x3a, OPEN = 0x7b, CLOSE = 0x7d;
const QUOTES = 1, OPENS = 2, CLOSES = 3;
/** What a byte means between strings. */
const MEANING = new Uint8Array(256);
MEANING[QUOTE] = QUOTES;
for (const char of "[{") MEANING[char.charCodeAt(0)] = OPENS;
for (const char of "]}") MEANING[char.charCodeAt(0)] = CLOSES;
const encoder = new TextEncoder();

/** Reads `{model, input, key}`. Throws `empty_body`, `invalid_json` or `invalid_input`. */
export function readWanted(bytes: Bytes): Wanted {
  if (bytes.length === 0) throw new Refusal("empty_body", "empty body");
  const members = split(bytes);
  const model = textOf(members.get("model"));
  if (model === undefined) throw invalid("model", "must be the name of a model");
  const key = textOf(members.get("key"));
  if (members.has("key") && !key) throw invalid("key", "must be a text");
  const input = decode(members.get("input") ?? encoder.encode("{}"));
  if (!input.startsWith("{")) throw invalid("input", "must be an object");
  const head = JSON.stringify({ model, key }).slice(0, -1);
  const row = encoder.encode(`${head},"input":${input}}`) as Bytes;
  return { model, key, input, row };
}

/** The members of the object `bytes`, each as it is written. Of one name the last counts. */
function split(bytes: Bytes): Map<string, Bytes> {
  const members = new Map<string, Bytes>();
  let at = skipBlanks(bytes, 0);
  if (bytes[at] !== OPEN) throw notJson("the body must be an object");
  for (let count = 0; count < MAX_MEMBERS; count++) {
    at = skipBlanks(bytes, at + 1); // the brace, or a comma
    if (bytes[at] === CLOSE && count === 0) break;
    if (bytes[at] !== QUOTE) throw notJson(`a name must stand at position ${at}`);
    const nameEnd = endOfString(bytes, at);
    const name = parse(bytes.subarray(at, nameEnd)) as string;
    at = skipBlanks(bytes, nameEnd);
    if (bytes[at] !== COLON) throw notJson(`a colon must stand at position ${at}`);
    const start = skipBlanks(bytes, at + 1);
    at = endOfValue(bytes, start);
    members.set(name, bytes.subarray(start, at));
    at = skipBlanks(bytes, at);
    if (bytes[at] === CLOSE) break;
    if (bytes[at] !== COMMA) throw notJson(`a comma must stand at position ${at}`);
  }
  if (bytes[at] !== CLOSE || skipBlanks(bytes, at + 1) < bytes.length) {
    throw notJson("the body must be one object with few members");
  }
  return members;
}

function endOfValue(bytes: Bytes, start: number): number {
  let at = start, depth = 0;
  do {
    const meaning = MEANING[bytes[at] ?? 0]!;
    if (meaning === QUOTES) at = endOfString(bytes, at);
    else at++;
    if (meaning === OPENS && ++depth > MAX_DEPTH) {
      throw notJson(`it must be nested at most ${MAX_DEPTH} levels deep`);
    }
    if (meaning === CLOSES) depth--;
    if (at > bytes.length) throw notJson("it has no end");
    if (meaning === 0 && depth === 0) { while (!isEnd(bytes[at])) at++; // a number or a word
     }
  } while (depth > 0);
  return at;
}

/** Behind the quote that closes the string at `start`. */
function endOfString(bytes: Bytes, start: number): number {
  for (let at = start + 1; at < bytes.length; at++) {
    if (bytes[at] === QUOTE) return at + 1;
    if (bytes[at] === BACKSLASH) at++;
  }
  throw notJson(`the string at position ${start} has no end`);
}

function skipBlanks(bytes: Bytes, from: number): number {
  let at = from;
  while (isBlank(bytes[at])) at++;
  return at;
}

function isBlank(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function isEnd(byte: number | undefined): boolean {
  return byte === undefined || byte === COMMA || byte === CLOSE || isBlank(byte);
}

/** The text that `json` is; undefined when it is something else, or nothing. */
function textOf(json: Bytes | undefined): string | undefined {
  return json?.[0] === QUOTE ? parse(json) as string : undefined;
}

function decode(json: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(json);
  } catch (error) {
    throw notJson(error);
  }
}

function parse(json: Bytes): unknown {
  try {
    return JSON.parse(decode(json));
  } catch (error) {
    throw error instanceof Refusal ? error : notJson(error);
  }
}

function invalid(name: string, what: string): Refusal {
  return new Refusal("invalid_input", `Cannot read '${name}': it ${what}`);
}
