/** What both functions do around a request: CORS, errors in one shape, one line of log. */

import type { World } from "../backend_server/backend.ts";
import { announcedBytes, readBytes } from "../backend_server/body.ts";
import { corsHeaders, preflight } from "../backend_server/cors.ts";
import { Refusal, refusalResponse } from "../backend_server/errors.ts";
import type { Env } from "../backend_server/settings.ts";
import { traceId } from "../backend_server/trace.ts";
import { DatabaseError } from "./platform.ts";

/** What a function needs from outside. */
export interface Deps extends World {
  env: Env;
  /** One entry per request; never holds an input, a key or a result. */
  log(entry: Record<string, unknown>): void;
}

/** One line of log, to which a handler adds. */
export type Entry = Record<string, unknown>;
export type Respond = (request: Request, deps: Deps, entry: Entry) => Promise<Response>;

const BODY_TIMEOUT_MS = 20_000;

/** Builds the function that maps every Request to a Response and never throws. */
export function createHandler(
  deps: Deps,
  methods: readonly string[],
  respond: Respond,
): (request: Request) => Promise<Response> {
  return async (request) => {
    const startedMs = deps.now();
    const entry: Entry = { request_id: deps.newId(), method: request.method };
    const response = await safely(request, deps, methods, respond, entry);
    const fixed = { ...corsHeaders(request, deps.env), "X-Content-Type-Options": "nosniff" };
    for (const [name, value] of Object.entries(fixed)) response.headers.set(name, value);
    response.headers.set("X-Request-Id", String(entry.request_id));
    const trace_id = traceId(request.headers.get("traceparent"));
    if (trace_id !== undefined) entry.trace_id = trace_id;
    deps.log({ ...entry, status: response.status, ms: Math.round(deps.now() - startedMs) });
    return response;
  };
}

async function safely(
  request: Request,
  deps: Deps,
  methods: readonly string[],
  respond: Respond,
  entry: Entry,
): Promise<Response> {
  try {
    if (request.method === "OPTIONS") {
      const response = preflight(request);
      response.headers.set("Access-Control-Allow-Methods", [...methods, "OPTIONS"].join(", "));
      return response;
    }
    if (!methods.includes(request.method)) {
      throw new Refusal("method_not_allowed", `The method must be one of ${methods.join(", ")}`);
    }
    return await respond(request, deps, entry);
  } catch (error) {
    // An unread body would keep the connection from its next request.
    if (!request.bodyUsed) await request.body?.cancel().catch(() => {});
    const refusal = toRefusal(error);
    entry.code = refusal.code;
    if (refusal.cause !== undefined) entry.cause = String(refusal.cause);
    return refusalResponse(refusal);
  }
}

/** A refusal of the database, in the words of the functions. */
function toRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (!(error instanceof DatabaseError)) {
    return new Refusal("internal_error", "internal error", { cause: error });
  }
  const { status, code, message, hint } = error;
  const cause = `${status} ${code} ${message}`;
  if (code === "PT429") {
    return new Refusal("quota_exceeded", message, hint ? { details: { hint } } : {});
  }
  if (status === 401) return new Refusal("unauthorized", "Sign in first", { cause });
  if (status === 403) return new Refusal("forbidden", message, { cause });
  if (code === "PGRST102" || code === "22P02") {
    return new Refusal("invalid_json", `JSON parse fail: ${message}`, { cause });
  }
  if (code === "PGRST106") {
    const what = "add `callme` to the exposed schemas of the project's API";
    return new Refusal("not_configured", `Cannot use the database: ${what}`, { cause });
  }
  if (status < 500 && status !== 404) return new Refusal("invalid_input", message, { cause });
  return new Refusal("service_unavailable", "The database cannot be used now", { cause });
}

/** The body, at most `maxBytes`. Throws as `readBytes` does. */
export async function readBody(
  request: Request,
  deps: Deps,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const announced = await announcedBytes(request, maxBytes);
  const stop = deps.after(BODY_TIMEOUT_MS);
  return await readBytes(request, announced, { maxBytes, stop, look: () => {} });
}

/** The JSON object that `bytes` hold. Throws `empty_body` or `invalid_json`. */
export function parseObject(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length === 0) throw new Refusal("empty_body", "empty body");
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new Refusal("invalid_json", `JSON parse fail: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Refusal("invalid_json", "JSON parse fail: the body must be an object");
  }
  return value as Record<string, unknown>;
}

/** Starts the function with the real network, clock and environment. */
export function serve(methods: readonly string[], respond: Respond): void {
  const handler = createHandler(
    {
      env: (name) => Deno.env.get(name),
      fetch: (input, init) => fetch(input, init),
      now: () => Date.now(),
      newId: () => crypto.randomUUID(),
      after: (ms) => AbortSignal.timeout(ms),
      log: (entry) => console.log(JSON.stringify(entry)),
    },
    methods,
    respond,
  );
  Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.env.get("PORT") ?? 8000) }, handler);
}
