/** What the app asks for: its JSON, checked, and turned into the parts the GPU box expects. */

import { tooLarge } from "./body.ts";
import { extensionOf, looksLikeDataUri, parseDataUri } from "./data_uri.ts";
import { Refusal } from "./errors.ts";
import { isBlank, isNumber, LongString, parseJsonBytes } from "./long_strings.ts";
import type { Part } from "./multipart.ts";
import type { Endpoints } from "./settings.ts";

/** Run a model, or look at a prediction made earlier. */
export type Call =
  | { kind: "run"; endpoint: string; parts: Part[]; async: boolean }
  | { kind: "look"; id: string };

type Json = Record<string, unknown>;

const PREDICTION_ID = /^[A-Za-z0-9_-]{1,64}$/;
const INPUT_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/;
const URL_CHARS = 4096;
/** Keys that speak to this function; everything else is an input of the model. */
const RESERVED: ReadonlySet<string> = new Set(["endpoint", "async", "prediction"]);
/** File inputs that can be given as `<name>_url` at any endpoint. */
const FILE_INPUTS = ["audio", "image"];

/**
 * Parses and checks the body, whose bytes become the files of the result. Throws `empty_body`, `invalid_json`, `unknown_endpoint`,
 * `missing_input`, `invalid_input` or `payload_too_large`.
 */
export function parseCall(
  bytes: Uint8Array<ArrayBuffer>,
  endpoints: Endpoints,
  maxFileBytes: number,
): Call {
  const body = parseObject(bytes);
  const { endpoint, prediction } = body;
  if (isGiven(prediction)) {
    if (isGiven(endpoint)) throw invalid("prediction", "must come without 'endpoint'");
    if (typeof prediction !== "string" || !PREDICTION_ID.test(prediction)) {
      throw invalid("prediction", "must be an id of 1 to 64 letters, digits, '_' or '-'");
    }
    return { kind: "look", id: prediction };
  }
  if (typeof endpoint !== "string" || !endpoints.has(endpoint)) {
    const details = { endpoints: [...endpoints.keys()] };
    throw new Refusal("unknown_endpoint", "unknown endpoint", { details });
  }
  const required = endpoints.get(endpoint) ?? null;
  if (required !== null && !isFilled(body[required]) && !isFilled(body[`${required}_url`])) {
    throw new Refusal("missing_input", `missing ${required}`);
  }
  const parts = toParts(body, required, maxFileBytes);
  return { kind: "run", endpoint, parts, async: readFlag(body, "async") };
}

function parseObject(bytes: Uint8Array<ArrayBuffer>): Json {
  if (isBlank(bytes)) throw new Refusal("empty_body", "empty body");
  const value = parseJsonBytes(bytes);
  if (kindOf(value) !== "object") {
    const message = `JSON parse fail: the body must be an object, got ${kindOf(value)}`;
    throw new Refusal("invalid_json", message);
  }
  return value as Json;
}

function toParts(body: Json, required: string | null, maxFileBytes: number): Part[] {
  const files = new Set(required === null ? FILE_INPUTS : [...FILE_INPUTS, required]);
  const byUrl = new Map([...files].map((name) => [`${name}_url`, name]));
  const parts: Part[] = [];
  let fileBytes = 0;
  for (const [name, value] of Object.entries(body)) {
    if (RESERVED.has(name) || !isGiven(value)) continue;
    if (value === "" && (files.has(name) || byUrl.has(name))) continue; // an empty form field
    if (!INPUT_NAME.test(name)) throw invalid(name.slice(0, 64), "must be named as an identifier");
    const target = byUrl.get(name);
    if (target !== undefined) {
      if (isFilled(body[target])) throw invalid(name, `must come without '${target}'`);
      parts.push({ name: target, text: readHttpsUrl(name, value) });
      continue;
    }
    const part = toPart(name, value, name === required);
    if ("file" in part) fileBytes += part.file.bytes.length;
    if (fileBytes > maxFileBytes) throw tooLarge(maxFileBytes);
    parts.push(part);
  }
  return parts;
}

/** A data URI becomes a file; a string goes as it is; anything else as the JSON it was. */
function toPart(name: string, value: unknown, isFile: boolean): Part {
  const isText = typeof value === "string" || value instanceof LongString;
  if (isFile && !isText) throw invalid(name, `must be a data URI, got ${kindOf(value)}`);
  if (!isText) return { name, text: JSON.stringify(value) };
  if (!isFile && !looksLikeDataUri(value)) {
    return { name, text: typeof value === "string" ? value : value.text() };
  }
  const file = parseDataUri(name, value);
  return { name, filename: `${name}.${extensionOf(file.type)}`, file };
}

/** The box fetches it, guarded against private addresses; here only the form is checked. */
function readHttpsUrl(name: string, value: unknown): string {
  const url = typeof value === "string" && value.length <= URL_CHARS && URL.canParse(value)
    ? new URL(value)
    : null;
  if (url === null || url.protocol !== "https:" || url.username || url.password) {
    throw invalid(name, "must be an https URL without a login");
  }
  return url.href;
}

function readFlag(body: Json, name: string): boolean {
  const value = body[name];
  if (!isGiven(value)) return false;
  if (typeof value !== "boolean") {
    throw invalid(name, `must be true or false, got ${kindOf(value)}`);
  }
  return value;
}

/** null means "not sent", as an absent key does. */
function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function isFilled(value: unknown): boolean {
  return isGiven(value) && value !== "";
}

function invalid(name: string, what: string): Refusal {
  return new Refusal("invalid_input", `Cannot read '${name}': it ${what}`);
}

/** The JSON name of a value's type. */
function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (value instanceof LongString) return "string";
  return isNumber(value) ? "number" : typeof value;
}
