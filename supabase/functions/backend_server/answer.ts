/** The GPU box's answer, handed on byte for byte once it is known to be one. */

import { explain, type Stop } from "./backend.ts";
import { peek, streamOf } from "./body.ts";
import { type ErrorCode, Refusal } from "./errors.ts";
import { JsonScan } from "./json_scan.ts";
import { checkJson } from "./long_strings.ts";
import type { Memory } from "./memory.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const RELAYED_HEADERS = [
  "content-type",
  "retry-after",
  "traceresponse",
  "x-prediction-id",
  "x-request-id",
];
// An answer is read whole and checked before its status goes out. Past this size, and when the
// answers on their way take all the memory that they may have, it is streamed as it comes.
const CHECKED_BYTES = 8 * 1024 * 1024;
const CHECKED_TEXT = { textBytes: 1024 * 1024, depth: 1000 };
/** Up to this size an answer is not worth keeping account of. */
const SMALL_BYTES = 64 * 1024;

/**
 * What an error that is not JSON means. The box's own errors are JSON: another form comes from a
 * proxy on the way, Cloudflare's with its own statuses of 520 to 530, and a page of HTML for 404
 * says that the box is not there, not that the app asked for the wrong thing.
 */
const PROXY_ERRORS: Record<number, [code: ErrorCode, message: string]> = {
  413: ["payload_too_large", "Cannot take the request: it is too large for the way to the GPU box"],
  429: ["rate_limited", "too many requests are on their way to the GPU box"],
  503: ["service_unavailable", "the GPU box cannot be reached now"],
  504: ["gateway_timeout", "the GPU box took too long"],
  522: ["gateway_timeout", "the GPU box took too long"],
  524: ["gateway_timeout", "the GPU box took too long"],
};
const UNREACHABLE: [ErrorCode, string] = ["bad_gateway", "the GPU box cannot be reached"];
const NO_JSON: [ErrorCode, string] = [
  "bad_gateway",
  "the GPU box gave an answer that is not JSON",
];

/**
 * Turns the box's answer into ours. Its 4xx and 5xx pass with status, body and Retry-After if they
 * are JSON. Throws `bad_gateway` for a success that is not JSON, and what PROXY_ERRORS says for an
 * error that is not.
 */
export async function relay(answer: Response, stop: Stop, memory: Memory): Promise<Response> {
  if (answer.body === null || !isJson(answer) || isRedirect(answer)) {
    await answer.body?.cancel();
    throw notJson(answer, describe(answer));
  }
  const lease = memory.tryTake(0);
  let size = 0;
  const hold = (bytes: number) => {
    size += bytes;
    return size <= CHECKED_BYTES && (lease?.grow(bytes) ?? false);
  };
  let isHeld = false;
  try {
    const stops = [stop.deadline, stop.gone];
    const peeked = await peek(answer.body as ReadableStream<Bytes>, hold, stops);
    if (!peeked.complete) return new Response(peeked.stream, head(answer));
    check(answer, peeked.bytes);
    if (size <= SMALL_BYTES) return new Response(peeked.bytes, head(answer));
    isHeld = true;
    const body = streamOf(peeked.bytes, () => lease?.release());
    return new Response(body, head(answer, size));
  } catch (error) {
    throw error instanceof Refusal ? error : explain(error, stop);
  } finally {
    if (!isHeld) lease?.release();
  }
}

function head(answer: Response, size?: number): ResponseInit {
  const headers = new Headers();
  for (const name of RELAYED_HEADERS) {
    const value = answer.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  if (size !== undefined) headers.set("content-length", String(size));
  return { status: answer.status, headers };
}

/** Strict on purpose: Python writes NaN and Infinity, which no browser can parse. */
function check(answer: Response, bytes: Bytes): void {
  try {
    const scan = new JsonScan(CHECKED_TEXT);
    scan.feed(bytes, bytes.length);
    scan.end();
    checkJson(bytes, scan.files);
  } catch (error) {
    // Of more text than may be parsed here it is not known that it is wrong.
    if (error instanceof Refusal && error.code === "payload_too_large") return;
    throw notJson(answer, error);
  }
}

function isJson(answer: Response): boolean {
  const type = answer.headers.get("content-type") ?? "";
  return /^application\/([\w.+-]+\+)?json\s*(;|$)/i.test(type);
}

function isRedirect(answer: Response): boolean {
  return answer.status >= 300 && answer.status < 400;
}

function describe(answer: Response): string {
  return `status ${answer.status}, content-type ${answer.headers.get("content-type") ?? "none"}`;
}

function notJson(answer: Response, cause: unknown): Refusal {
  const { status } = answer;
  const [code, message] = status < 400 ? NO_JSON : PROXY_ERRORS[status] ?? UNREACHABLE;
  const retryAfter = answer.headers.get("retry-after") ?? undefined;
  return new Refusal(code, message, { cause, retryAfter });
}
