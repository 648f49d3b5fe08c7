/** Reading bodies without letting the other side decide how much memory that takes. */

import { Refusal } from "./errors.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const CHUNK_BYTES = 64 * 1024;

/** How a body is read. */
export interface Reading {
  maxBytes: number;
  /** Ends the reading: too slow. */
  stop: AbortSignal;
  /** Looks at what has come so far, `size` bytes, and throws if it has seen enough. */
  look(bytes: Uint8Array<ArrayBuffer>, size: number): void;
}

/** The size that the request announces, or null. Throws `payload_too_large` over `maxBytes`. */
export async function announcedBytes(request: Request, maxBytes: number): Promise<number | null> {
  const header = request.headers.get("content-length");
  const announced = header === null ? NaN : Number(header);
  if (announced > maxBytes) {
    await request.body?.cancel();
    throw tooLarge(maxBytes);
  }
  if (request.body === null) return 0;
  return Number.isSafeInteger(announced) && announced >= 0 ? announced : null;
}

/**
 * The request's body. Throws `payload_too_large` as soon as its size passes the limit and what
 * `look` throws, without reading the rest; `request_timeout` when `stop` fires and
 * `client_closed_request` when the sender leaves in the middle.
 */
export async function readBytes(
  request: Request,
  announced: number | null,
  reading: Reading,
): Promise<Uint8Array<ArrayBuffer>> {
  if (request.body === null) return new Uint8Array();
  const reader = request.body.getReader();
  const stopped = () => void reader.cancel(slow()).catch(() => {});
  reading.stop.addEventListener("abort", stopped, { once: true });
  try {
    const bytes = await collect(reader, announced, reading);
    if (reading.stop.aborted) throw slow(); // a cancelled body looks like one that has ended
    return bytes;
  } catch (cause) {
    await reader.cancel(cause).catch(() => {});
    if (cause instanceof Refusal) throw cause;
    throw new Refusal("client_closed_request", "the request broke off", { cause });
  } finally {
    reading.stop.removeEventListener("abort", stopped);
  }
}

async function collect(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  announced: number | null,
  { maxBytes, look }: Reading,
): Promise<Uint8Array<ArrayBuffer>> {
  // One buffer of the announced size: collecting chunks would need the memory twice.
  let buffer = new Uint8Array(announced || CHUNK_BYTES);
  let size = 0;
  for (;;) {
    const { done, value: chunk } = await reader.read();
    if (done) return buffer.subarray(0, size);
    if (size + chunk.length > maxBytes) throw tooLarge(maxBytes);
    if (size + chunk.length > buffer.length) {
      const grown = new Uint8Array(Math.min(maxBytes, 2 * (size + chunk.length)));
      grown.set(buffer.subarray(0, size));
      buffer = grown;
    }
    buffer.set(chunk, size);
    size += chunk.length;
    look(buffer, size);
  }
}

function slow(): Refusal {
  return new Refusal("request_timeout", "Cannot take the request: its body came too slowly");
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

/**
 * Reads `body` whole as long as `hold` takes its bytes; else gives it back as a stream, unchanged.
 * Either way the reading fails when one of `stops` fires.
 */
export async function peek(
  body: ReadableStream<Bytes>,
  hold: (bytes: number) => boolean,
  stops: readonly AbortSignal[],
): Promise<Peeked> {
  const source = readUntil(body, stops);
  const chunks: Bytes[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await source.read();
    if (done) return { complete: true, bytes: concat(chunks, size) };
    chunks.push(value);
    size += value.length;
    if (!hold(value.length)) return { complete: false, stream: resume(chunks, source) };
  }
}

interface Source {
  read(): Promise<ReadableStreamReadResult<Bytes>>;
  cancel(reason: unknown): Promise<void>;
}

/**
 * A reader that `stops` end. The signal that fetch was given does not do that for certain: Deno may
 * collect one that `AbortSignal.any` made as garbage as soon as the answer's head has come.
 */
function readUntil(body: ReadableStream<Bytes>, stops: readonly AbortSignal[]): Source {
  const reader = body.getReader();
  const cut = () => void reader.cancel().catch(() => {});
  const release = () => stops.forEach((stop) => stop.removeEventListener("abort", cut));
  stops.forEach((stop) => stop.addEventListener("abort", cut, { once: true }));
  if (stops.some((stop) => stop.aborted)) cut();
  return {
    async read() {
      const result = await reader.read();
      stops.forEach((stop) => stop.throwIfAborted()); // what was cut looks like an end
      if (result.done) release();
      return result;
    },
    cancel(reason) {
      release();
      return reader.cancel(reason);
    },
  };
}

function resume(chunks: Bytes[], source: Source): ReadableStream<Bytes> {
  return new ReadableStream({
    async pull(controller) {
      const head = chunks.shift();
      if (head) return controller.enqueue(head);
      const { done, value } = await source.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => source.cancel(reason),
  });
}

/** `bytes` as a stream, which calls `ended` when its reader has all of it or leaves. */
export function streamOf(
  bytes: Uint8Array<ArrayBuffer>,
  ended: () => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let rest = bytes;
  return new ReadableStream({
    pull(controller) {
      if (rest.length === 0) {
        controller.close();
        return ended();
      }
      controller.enqueue(rest.subarray(0, CHUNK_BYTES));
      rest = rest.subarray(CHUNK_BYTES);
    },
    cancel: ended,
  }, { highWaterMark: 0 });
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
