/** One request to the GPU box, signed, bounded in time, and abandoned when the app goes away. */

import { concat } from "./body.ts";
import type { Call } from "./call.ts";
import { Refusal } from "./errors.ts";
import { encodeMultipart } from "./multipart.ts";
import type { Backend } from "./settings.ts";
import { signatureHeaders } from "./sign.ts";

/** What the world offers; injected, so that a test needs neither a network nor to wait. */
export interface World {
  fetch: typeof fetch;
  /** Unix time in milliseconds. */
  now(): number;
  /** A random UUID. */
  newId(): string;
  /** A signal that fires after so many milliseconds. */
  after(ms: number): AbortSignal;
}

/** Ends a request: `deadline` by the clock, `gone` when the app hangs up. */
export interface Stop {
  deadline: AbortSignal;
  gone: AbortSignal;
}

/** A request to the box, complete but for its credentials. */
export interface Outgoing {
  method: "POST" | "PUT" | "GET";
  /** Below the box's URL, with a leading slash. */
  path: string;
  /** Empty when there is no body. */
  contentType: string;
  /** The body, one piece after the other. Sending it takes them out, so that they can be freed. */
  pieces: Uint8Array<ArrayBuffer>[];
  async: boolean;
  /** The headers that continue the app's trace, if it has one. */
  trace?: Record<string, string>;
}

/** Up to this size a body goes out in one piece, which fetch can send again if a connection ends. */
const STREAMED_BYTES = 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

/** What `call` looks like on the wire. `boundary` must be random. */
export function compose(call: Call, boundary: string): Outgoing {
  if (call.kind === "look") {
    const path = `/predictions/${call.id}`;
    return { method: "GET", path, contentType: "", pieces: [], async: false };
  }
  const encoded = encodeMultipart(call.parts, boundary);
  return { method: "POST", path: `/${call.endpoint}`, async: call.async, ...encoded };
}

/**
 * Sends `request` and returns the box's answer, its body unread. `sent` is called as soon as
 * the request's memory is not needed any more. Throws what `explain` says.
 */
export async function send(
  request: Outgoing,
  backend: Backend,
  requestId: string,
  world: World,
  stop: Stop,
  sent: () => void,
): Promise<Response> {
  const url = new URL(backend.url + request.path);
  const headers: Record<string, string> = {
    "Accept": "application/json",
    "X-Request-Id": requestId,
    ...(request.contentType ? { "Content-Type": request.contentType } : {}),
    ...(request.async ? { "Prefer": "respond-async" } : {}),
    ...request.trace,
    ...await credentials(request, url, backend, world),
  };
  try {
    return await world.fetch(url, {
      method: request.method,
      headers,
      ...(request.method === "GET" ? {} : { body: upload(request.pieces, sent) }),
      // Following a redirect would send body and credentials to the host in Location.
      redirect: "manual",
      signal: AbortSignal.any([stop.deadline, stop.gone]),
    });
  } catch (error) {
    throw explain(error, stop);
  }
}

/**
 * The pieces as a body. A large one is a stream: as bytes it would be copied twice on its way out
 * and held until the model has answered.
 */
function upload(pieces: Uint8Array<ArrayBuffer>[], sent: () => void): BodyInit {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (size <= STREAMED_BYTES) {
    const body = concat(pieces, size);
    sent(); // too small to be waited for: the answer may take a minute and a half
    return body;
  }
  return new ReadableStream({
    pull(controller) {
      while (pieces[0]?.length === 0) pieces.shift();
      const piece = pieces[0];
      if (piece === undefined) {
        controller.close();
        return sent();
      }
      controller.enqueue(piece.subarray(0, CHUNK_BYTES));
      pieces[0] = piece.subarray(CHUNK_BYTES);
    },
    cancel() {
      pieces.length = 0;
      sent();
    },
  }, { highWaterMark: 0 });
}

/** Why a request to the box, or the reading of its answer, broke off. */
export function explain(cause: unknown, stop: Stop): Refusal {
  if (stop.gone.aborted) {
    return new Refusal("client_closed_request", "the caller hung up", { cause });
  }
  if (stop.deadline.aborted) {
    return new Refusal("gateway_timeout", "the GPU box took too long", { cause });
  }
  return new Refusal("bad_gateway", "the GPU box cannot be reached", { cause });
}

async function credentials(
  request: Outgoing,
  url: URL,
  backend: Backend,
  world: World,
): Promise<Record<string, string>> {
  if (backend.auth === "none") return {};
  if (backend.auth === "bearer") return { "Authorization": `Bearer ${backend.key}` };
  const signed = {
    method: request.method,
    path: url.pathname + url.search,
    contentType: request.contentType,
    pieces: request.pieces,
    timestamp: String(Math.floor(world.now() / 1000)),
    nonce: world.newId(),
  };
  return await signatureHeaders(signed, backend.key, backend.keyId);
}
