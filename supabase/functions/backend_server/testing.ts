/** Builds handlers for tests: real handler, recorded box. Not imported by index.ts. */

import { createHandler } from "./handler.ts";
import type { Deps } from "./handler.ts";

export const BOX = "https://box.example";
export const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";
export const PNG = "iVBORw0KGgo=";

/** What the box was sent. */
export interface Sent {
  url: string;
  method: string;
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
  signal: AbortSignal;
}

export interface Bench {
  /** POSTs `body` (an object is sent as JSON) and returns the answer. */
  call(body: unknown, headers?: Record<string, string>): Promise<Response>;
  /** Sends any request. */
  ask(init: RequestInit): Promise<Response>;
  sent: Sent[];
  env: Map<string, string>;
  log: Record<string, unknown>[];
}

export type Box = (sent: Sent) => Response | Promise<Response>;

/** A handler whose box is `box`; by default it answers `{"ok":true}`. */
export function bench(box: Box = okay, change: Partial<Deps> = {}): Bench {
  const sent: Sent[] = [];
  const env = new Map([["GPU_BACKEND_URL", BOX]]);
  const log: Record<string, unknown>[] = [];
  let ids = 0;
  const handler = createHandler({
    env: (name) => env.get(name),
    now: () => 1_790_000_000_500,
    newId: () => `id-${++ids}`,
    after: () => new AbortController().signal,
    log: (entry) => log.push(entry),
    fetch: async (input, init) => {
      const request = new Request(input as URL, init);
      const { url, method, headers } = request;
      const body = new Uint8Array(await request.arrayBuffer());
      const signal = init!.signal!;
      sent.push({ url, method, headers, body, signal });
      return await box(sent.at(-1)!);
    },
    ...change,
  });
  const ask = (init: RequestInit) => handler(new Request("http://fn.example/backend_server", init));
  const call = (body: unknown, headers = {}) =>
    ask({
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  return { call, ask, sent, env, log };
}

export function okay(): Response {
  return Response.json({ ok: true });
}

/** The parts the box was sent, read by the platform's own multipart parser. */
export async function formOf(sent: Sent): Promise<FormData> {
  return await new Response(sent.body, { headers: sent.headers }).formData();
}

export async function fileOf(sent: Sent, name: string): Promise<{ file: File; bytes: Uint8Array }> {
  const file = (await formOf(sent)).get(name);
  if (!(file instanceof File)) throw new Error(`'${name}' is not a file part: ${file}`);
  return { file, bytes: new Uint8Array(await file.arrayBuffer()) };
}

/** The message of an answer in the house's error shape. */
export async function messageOf(response: Response): Promise<string> {
  const body = await response.json();
  if (typeof body?.error?.code !== "string") throw new Error(`no code: ${JSON.stringify(body)}`);
  return body.error.message;
}
