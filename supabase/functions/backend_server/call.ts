/** What the app asks for: its JSON, checked, and turned into the parts the GPU box expects. */

import { tooLarge } from "./body.ts";
import { extensionOf, looksLikeDataUri, parseDataUri } from "./data_uri.ts";
import { Refusal } from "./errors.ts";
import { type Span, tooMuchText } from "./json_scan.ts";
import {
  isBlank,
  type Kind,
  LongString,
  parseObject,
  RawJson,
  type Value,
} from "./long_strings.ts";
import type { Part } from "./multipart.ts";
import type { Endpoints, Limits } from "./settings.ts";

/** Run a model, or look at a prediction made earlier. */
export type Call =
  | { kind: "run"; endpoint: string; parts: Part[]; async: boolean }
  | { kind: "look"; id: string };

type Members = ReadonlyMap<string, Value>;

const PREDICTION_ID = /^[A-Za-z0-9_-]{1,64}$/;
const INPUT_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/;
const URL_CHARS = 4096;
/** Keys that speak to this function; everything else is an input of the model. */
const RESERVED: ReadonlySet<string> = new Set(["endpoint", "async", "prediction"]);
/** File inputs that can be given as `<name>_url` at any endpoint. */
const FILE_INPUTS = ["audio", "image"];

/**
 * Parses and checks the body, whose long files are `files` and whose bytes become the files of
 * the result. Throws `empty_body`, `invalid_json`, `unknown_endpoint`, `missing_input`,
 * `invalid_input` or `payload_too_large`.
 */
export function parseCall(
  bytes: Uint8Array<ArrayBuffer>,
  files: readonly Span[],
  endpoints: Endpoints,
  limits: Limits,
): Call {
  if (files.length === 0 && isBlank(bytes)) throw new Refusal("empty_body", "empty body");
  const body = parseObject(bytes, files);
  const endpoint = body.get("endpoint");
  const prediction = body.get("prediction");
  if (prediction !== undefined) {
    if (endpoint !== undefined) throw invalid("prediction", "must come without 'endpoint'");
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
  if (required !== null && !isFilled(body, required) && !isFilled(body, `${required}_url`)) {
    throw new Refusal("missing_input", `missing ${required}`);
  }
  const parts = toParts(body, required, limits);
  return { kind: "run", endpoint, parts, async: readFlag(body, "async") };
}

function toParts(body: Members, required: string | null, limits: Limits): Part[] {
  const files = new Set(required === null ? FILE_INPUTS : [...FILE_INPUTS, required]);
  const byUrl = new Map([...files].map((name) => [`${name}_url`, name]));
  const parts: Part[] = [];
  let fileBytes = 0;
  for (const [name, value] of body) {
    if (RESERVED.has(name)) continue;
    if (value === "" && (files.has(name) || byUrl.has(name))) continue; // an empty form field
    if (!INPUT_NAME.test(name)) throw invalid(name.slice(0, 64), "must be named as an identifier");
    const target = byUrl.get(name);
    if (target !== undefined) {
      if (isFilled(body, target)) throw invalid(name, `must come without '${target}'`);
      parts.push({ name: target, text: readHttpsUrl(name, value) });
      continue;
    }
    const part = toPart(name, value, name === required, limits.textBytes);
    if ("file" in part) fileBytes += part.file.bytes.length;
    if (fileBytes > limits.fileBytes) throw tooLarge(limits.fileBytes);
    parts.push(part);
  }
  return parts;
}

/** A data URI becomes a file; a string goes as it is; anything else as the JSON it was. */
function toPart(name: string, value: Value, isFile: boolean, maxTextBytes: number): Part {
  if (typeof value !== "string" && !(value instanceof LongString)) {
    if (isFile) throw invalid(name, `must be a data URI, got ${value.kind}`);
    return { name, text: value.bytes };
  }
  if (!isFile && !looksLikeDataUri(value)) {
    const text = typeof value === "string" ? value : value.bytes();
    if (text.length > maxTextBytes) throw tooMuchText(maxTextBytes);
    return { name, text };
  }
  const file = parseDataUri(name, value);
  return { name, filename: `${name}.${extensionOf(file.type)}`, file };
}

/** The box fetches it, guarded against private addresses; here only the form is checked. */
function readHttpsUrl(name: string, value: Value): string {
  const url = typeof value === "string" && value.length <= URL_CHARS && URL.canParse(value)
    ? new URL(value)
    : null;
  if (url === null || url.protocol !== "https:" || url.username || url.password) {
    throw invalid(name, "must be an https URL without a login");
  }
  return url.href;
}

function readFlag(body: Members, name: string): boolean {
  const value = body.get(name);
  if (value === undefined) return false;
  if (kindOf(value) !== "boolean") {
    throw invalid(name, `must be true or false, got ${kindOf(value)}`);
  }
  return value instanceof RawJson && value.bytes.length === "true".length;
}

function isFilled(body: Members, name: string): boolean {
  return body.has(name) && body.get(name) !== "";
}

function invalid(name: string, what: string): Refusal {
  return new Refusal("invalid_input", `Cannot read '${name}': it ${what}`);
}

function kindOf(value: Value): Kind {
  return value instanceof RawJson ? value.kind : "string";
}
