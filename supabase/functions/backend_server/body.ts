/** Reading bodies without letting the other side decide how much memory that takes. */

import { Refusal } from "./errors.ts";

/**
 * The request's body as text, at most `maxBytes` of UTF-8.
 *
 * Throws `payload_too_large` as soon as the announced or the real size passes the limit. Decodes
 * chunk by chunk: the bytes and the text are never both in memory as a whole.
 */
export async function readText(request: Request, maxBytes: number): Promise<string> {
  const announced = Number(request.headers.get("content-length") ?? 0);
  if (announced > maxBytes) {
    await request.body?.cancel();
    throw tooLarge(maxBytes);
  }
  if (request.body === null) return "";
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "", received = 0;
  for await (const chunk of request.body) { // leaving the loop early cancels the body
    received += chunk.length;
    if (received > maxBytes) throw tooLarge(maxBytes);
    text += decode(decoder, chunk);
  }
  return text + decode(decoder);
}

function decode(decoder: TextDecoder, chunk?: Uint8Array<ArrayBuffer>): string {
  try {
    return chunk ? decoder.decode(chunk, { stream: true }) : decoder.decode();
  } catch {
    throw new Refusal("invalid_json", "JSON parse fail: the body is not UTF-8");
  }
}

/** 413 for a request or its files over `maxBytes`. */
export function tooLarge(maxBytes: number): Refusal {
  const mib = (maxBytes / 1024 / 1024).toFixed(1);
  return new Refusal(
    "payload_too_large",
    `Cannot take the request: it must be at most ${mib} MiB`,
    {
      details: { max_bytes: maxBytes },
    },
  );
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
