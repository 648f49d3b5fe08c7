/**
 * The function itself: the web app's JSON in, the GPU box's JSON out.
 *
 * Nothing is kept between requests but the account of the memory that they hold: the platform runs
 * many workers, restarts them at will, and changes the secrets under them.
 */

import { relay } from "./answer.ts";
import { compose, type Outgoing, send, type World } from "./backend.ts";
import { announcedBytes, readBytes } from "./body.ts";
import { parseCall } from "./call.ts";
import { admit } from "./caller.ts";
import { corsHeaders, preflight } from "./cors.ts";
import { Refusal, refusalResponse } from "./errors.ts";
import { JsonScan } from "./json_scan.ts";
import { createRoom, type Lease, type Room } from "./memory.ts";
import { type Env, type Limits, readBackend, readEndpoints, readLimits } from "./settings.ts";
import { traceHeaders, traceId } from "./trace.ts";

/** What the handler needs from outside. */
export interface Deps extends World {
  env: Env;
  /** One entry per request; never holds an input, a key or an answer. */
  log(entry: Record<string, unknown>): void;
}

/** Levels of arrays and objects in each other. */
const MAX_DEPTH = 100;
const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/;

/** Builds the function that maps every Request to a Response and never throws. */
export function createHandler(deps: Deps): (request: Request) => Promise<Response> {
  const room = createRoom(deps);
  return async (request) => {
    const startedMs = deps.now();
    const asked = request.headers.get("x-request-id") ?? "";
    const requestId = REQUEST_ID.test(asked) ? asked : deps.newId();
    const entry: Record<string, unknown> = { request_id: requestId, method: request.method };
    const response = await respond(request, requestId, deps, room, entry);
    const fixed = { ...corsHeaders(request, deps.env), "X-Content-Type-Options": "nosniff" };
    for (const [name, value] of Object.entries(fixed)) response.headers.set(name, value);
    if (!response.headers.has("x-request-id")) response.headers.set("X-Request-Id", requestId);
    const trace_id = traceId(
      response.headers.get("traceresponse") ?? request.headers.get("traceparent"),
    );
    if (trace_id !== undefined) entry.trace_id = trace_id;
    deps.log({ ...entry, status: response.status, ms: Math.round(deps.now() - startedMs) });
    return response;
  };
}

async function respond(
  request: Request,
  requestId: string,
  deps: Deps,
  room: Room,
  entry: Record<string, unknown>,
): Promise<Response> {
  try {
    if (request.method === "OPTIONS") return preflight(request);
    if (request.method !== "POST") return methodNotAllowed(request);
    return await forward(request, requestId, deps, room, entry);
  } catch (error) {
    const refusal = error instanceof Refusal
      ? error
      : new Refusal("internal_error", "internal error", { cause: error });
    entry.code = refusal.code;
    if (refusal.cause !== undefined) entry.cause = String(refusal.cause);
    return refusalResponse(refusal);
  }
}

async function forward(
  request: Request,
  requestId: string,
  deps: Deps,
  room: Room,
  entry: Record<string, unknown>,
): Promise<Response> {
  await admit(request, deps.env, deps.now());
  const limits = readLimits(deps.env);
  const late = deps.after(limits.bodyTimeoutMs);
  const announced = await announcedBytes(request, limits.bodyBytes);
  const share = announced ?? limits.bodyBytes;
  const lease = await room.forBody(share).take(share, request.signal);
  try {
    const outgoing = await prepare(request, announced, limits, lease, late, deps);
    entry.path = outgoing.path;
    const backend = readBackend(deps.env);
    const stop = { deadline: deps.after(limits.timeoutMs), gone: request.signal };
    const answer = await send(outgoing, backend, requestId, deps, stop, lease.release);
    return await relay(answer, stop, room.answers);
  } finally {
    lease.release();
  }
}

/** A function of its own so that the body is garbage once the box has it. */
async function prepare(
  request: Request,
  announced: number | null,
  limits: Limits,
  lease: Lease,
  late: AbortSignal,
  deps: Deps,
): Promise<Outgoing> {
  const scan = new JsonScan({ textBytes: limits.textBytes, depth: MAX_DEPTH });
  const bytes = await readBytes(request, announced, {
    maxBytes: limits.bodyBytes,
    stop: AbortSignal.any([late, lease.evicted]),
    look: (bytes, size) => {
      lease.arrived(size);
      scan.feed(bytes, size);
    },
  });
  scan.end();
  lease.complete();
  const call = parseCall(bytes, scan.files, readEndpoints(deps.env), limits);
  return { ...compose(call, `callme-${deps.newId()}`), trace: traceHeaders(request.headers) };
}

function methodNotAllowed(request: Request): Response {
  const refusal = new Refusal(
    "method_not_allowed",
    `Cannot run a model: the method must be POST, got ${request.method}`,
  );
  const response = refusalResponse(refusal);
  response.headers.set("Allow", "POST, OPTIONS");
  return response;
}
