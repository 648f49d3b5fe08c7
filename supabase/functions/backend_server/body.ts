/** Reading bodies without letting the other side decide how much memory that takes. */

import { Refusal } from "./errors.ts";

const FIRST_BYTES = 64 * 1024;

/**
 * The request's body, at most `maxBytes`. Throws `payload_too_large` as soon as the announced or
 * the real size passes the limit, without reading the rest, and `client_closed_request` when the
 * sender leaves in the middle.
 */
export async function readBytes(
  request: Request,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const announced = Number(request.headers.get("content-length") ?? 0);
  if (announced > maxBytes) {
    await request.body?.cancel();
    throw tooLarge(maxBytes);
  }
  if (request.body === null) return new Uint8Array();
  try {
    return await collect(request.body, announced, maxBytes);
  } catch (cause) {
    if (cause instanceof Refusal) throw cause;
    throw new Refusal("client_closed_request", "the request broke off", { cause });
  }
}

async function collect(
  body: ReadableStream<Uint8Array>,
  announced: number,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  // One buffer of the announced size: collecting chunks would need the memory twice.
  let buffer = new Uint8Array(announced > 0 ? announced : FIRST_BYTES);
  let size = 0;
  for await (const chunk of body) { // leaving the loop early cancels the body
    if (size + chunk.length > maxBytes) throw tooLarge(maxBytes);
    if (size + chunk.length > buffer.length) {
      const grown = new Uint8Array(Math.min(maxBytes, 2 * (size + chunk.length)));
      grown.set(buffer.subarray(0, size));
      buffer = grown;
    }
    buffer.set(chunk, size);
    size += chunk.length;
  }
  return buffer.subarray(0, size);
}

/** 413 for a request or its files over `maxBytes`. */
export function tooLarge(maxBytes: number): Refusal {
  const mib = (maxBytes / 1024 / 1024).toFixed(1);
  const message = `Cannot take the request: it must be at most ${mib} MiB`;
  return new Refusal("payload_too_large", message, { details: { max_bytes: maxBytes } });
}

/** A body read up to a limit: all of it, or what was read followed by what is still to come. */
export type Peeked =
  | { complete: true; bytes: Uint8Array<ArrayBuffer> }
  | { complete: false; stream: ReadableStream<Uint8Array<ArrayBuffer>> };

/** Reads `body` whole if it has at most `maxBytes`; else gives it back as a stream, unchanged. */
export async function peek(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  maxBytes: number,
): Promise<Peeked> {
  const reader = body.getReader();
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  while (size <= maxBytes) {
    const { done, value } = await reader.read();
    if (done) return { complete: true, bytes: concat(chunks, size) };
    chunks.push(value);
    size += value.length;
  }
  return { complete: false, stream: resume(chunks, reader) };
}

function resume(
  chunks: Uint8Array<ArrayBuffer>[],
  reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    async pull(controller) {
      const head = chunks.shift();
      if (head) return controller.enqueue(head);
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

/** One array of `size` bytes out of many. */
export function concat(chunks: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}
