/**
 * The environment, read and checked. Supabase calls these values "secrets".
 *
 * They are read for every request, not once per process: a new tunnel URL is published by changing
 * the secret, and a copy kept in a module would go on calling the old one.
 */

import { Refusal } from "./errors.ts";

export type Env = (name: string) => string | undefined;

/** Where the GPU box is and how to prove to it who calls. */
export interface Backend {
  /** Without a trailing slash; may hold a path prefix. */
  url: string;
  auth: "none" | "hmac" | "bearer";
  key: string;
  keyId: string | undefined;
}

/** Bounds on one request. */
export interface Limits {
  /** All files of a request together, decoded. */
  fileBytes: number;
  /** All that is not a file together, as sent: what `JSON.parse` may see. */
  textBytes: number;
  /** The JSON as sent: base64 is 4/3 of the file, and the other inputs. */
  bodyBytes: number;
  /** From the request's head until the whole of its body has come. */
  bodyTimeoutMs: number;
  /** From sending to the box until its answer stands. */
  timeoutMs: number;
}

/** Endpoint name to the file input it cannot do without; null where there is none. */
export type Endpoints = ReadonlyMap<string, string | null>;

const MIB = 1024 * 1024;
// 256 MB are shared by all requests of a worker: memory.ts says how.
const DEFAULT_FILE_BYTES = 10 * MIB;
// What the box takes as text. 1 MiB of any JSON parses in a tenth of the CPU time that is allowed.
const TEXT_BYTES = MIB;
// Cloudflare gives up after 100 to 120 s and Supabase after 150 s: we want to be the first.
const DEFAULT_TIMEOUT_S = 90;
// What Supabase's 150 s leave. 10 MiB come in that time at 2 Mbit/s.
const DEFAULT_BODY_TIMEOUT_S = 55;

const SHIPPED_ENDPOINTS: [string, string][] = [
  ["fluency", "audio"],
  ["sketch2real", "image"],
  ["grounding", "image"],
];
const ENDPOINT = /^([a-z0-9][a-z0-9_-]{0,63})(?::([A-Za-z_][A-Za-z0-9_]{0,63}))?$/;

/**
 * `GPU_BACKEND_URL`, `GPU_BACKEND_KEY`, `GPU_BACKEND_KEY_ID`, `GPU_BACKEND_AUTH`.
 * Throws `not_configured` when they cannot be used together.
 */
export function readBackend(env: Env): Backend {
  const url = readUrl(env("GPU_BACKEND_URL")?.trim());
  const key = env("GPU_BACKEND_KEY")?.trim() ?? "";
  const keyId = env("GPU_BACKEND_KEY_ID")?.trim() || undefined;
  const auth = env("GPU_BACKEND_AUTH")?.trim() || (key ? "hmac" : "none");
  if (auth !== "none" && auth !== "hmac" && auth !== "bearer") {
    throw notConfigured(`'GPU_BACKEND_AUTH' must be hmac, bearer or none, got ${auth}`);
  }
  if (auth !== "none" && !key) throw notConfigured("'GPU_BACKEND_KEY' is not set");
  if (auth === "bearer" && url.protocol === "http:" && !isThisMachine(url.hostname)) {
    throw notConfigured("'GPU_BACKEND_URL' must be https when the key travels as a bearer token");
  }
  return { url: url.href.replace(/\/+$/, ""), auth, key, keyId };
}

/** `GPU_BACKEND_MAX_BYTES`, `GPU_BACKEND_BODY_TIMEOUT_S` and `…_TIMEOUT_S`, or their defaults. */
export function readLimits(env: Env): Limits {
  const fileBytes = readPositive(env, "GPU_BACKEND_MAX_BYTES", DEFAULT_FILE_BYTES);
  const timeoutS = readPositive(env, "GPU_BACKEND_TIMEOUT_S", DEFAULT_TIMEOUT_S);
  const bodyTimeoutS = readPositive(env, "GPU_BACKEND_BODY_TIMEOUT_S", DEFAULT_BODY_TIMEOUT_S);
  return {
    fileBytes,
    textBytes: TEXT_BYTES,
    bodyBytes: Math.ceil((fileBytes * 4) / 3) + TEXT_BYTES,
    bodyTimeoutMs: bodyTimeoutS * 1000,
    timeoutMs: timeoutS * 1000,
  };
}

/**
 * What the box has published as `GPU_BACKEND_MODELS`, such as `caption:image,translate`, else the
 * shipped endpoints; and those of `GPU_BACKEND_ENDPOINTS`, which a person sets. No other model is
 * asked for.
 */
export function readEndpoints(env: Env): Endpoints {
  const published = readList(env("GPU_BACKEND_MODELS"));
  const endpoints = new Map<string, string | null>(published.length > 0 ? [] : SHIPPED_ENDPOINTS);
  const lists: [string, string[]][] = [
    ["GPU_BACKEND_MODELS", published],
    ["GPU_BACKEND_ENDPOINTS", readList(env("GPU_BACKEND_ENDPOINTS"))],
  ];
  for (const [name, entries] of lists) {
    for (const entry of entries) {
      const match = ENDPOINT.exec(entry);
      if (!match) throw notConfigured(`'${name}' must be name or name:field, got ${entry}`);
      endpoints.set(match[1]!, match[2] ?? null);
    }
  }
  return endpoints;
}

/** A comma-separated value without its blanks. */
export function readList(value: string | undefined): string[] {
  return (value ?? "").split(",").map((entry) => entry.trim()).filter((entry) => entry !== "");
}

function readUrl(value: string | undefined): URL {
  if (!value) throw notConfigured("'GPU_BACKEND_URL' is not set");
  const url = URL.canParse(value) ? new URL(value) : null;
  const usable = url !== null && (url.protocol === "https:" || url.protocol === "http:") &&
    !url.username && !url.password && !url.search && !url.hash;
  if (!usable) {
    throw notConfigured(
      "'GPU_BACKEND_URL' must be an http(s) URL without login, query or fragment",
    );
  }
  return url;
}

function readPositive(env: Env, name: string, fallback: number): number {
  const value = env(name)?.trim();
  if (!value) return fallback;
  const number = Number(value);
  if (!Number.isFinite(number) || number <= 0) {
    throw notConfigured(`'${name}' must be a positive number, got ${value}`);
  }
  return number;
}

function isThisMachine(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || hostname === "host.docker.internal" ||
    hostname.startsWith("127.");
}

export function notConfigured(what: string): Refusal {
  return new Refusal("not_configured", `Cannot reach the GPU box: ${what}`);
}
