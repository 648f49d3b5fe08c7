/** The GPU box's answer, handed on byte for byte once it is known to be one. */

import { explain, type Stop } from "./backend.ts";
import { peek } from "./body.ts";
import { Refusal } from "./errors.ts";

const RELAYED_HEADERS = ["content-type", "retry-after", "x-prediction-id", "x-request-id"];
// A success is read whole and parsed before its status goes out. Past this size it is streamed
// unparsed: holding it would cost more of the worker's memory than the check is worth.
const CHECKED_BYTES = 8 * 1024 * 1024;
// Cloudflare's own statuses, with an HTML page or a line of text: the box never spoke.
const PROXY_STATUS = { first: 520, last: 530, timeout: 524 };

/**
 * Turns the box's answer into ours. Its 4xx and 5xx pass with status, body and Retry-After. Throws
 * `bad_gateway` for a success that is not JSON, a redirect or a proxy's error page.
 */
export async function relay(answer: Response, stop: Stop): Promise<Response> {
  if (answer.status >= 200 && answer.status < 300) {
    return new Response(await checkedBody(answer, stop), head(answer));
  }
  if (answer.status >= 400 && !isProxyError(answer)) {
    return new Response(answer.body, head(answer));
  }
  await answer.body?.cancel();
  if (answer.status === PROXY_STATUS.timeout) {
    throw new Refusal("gateway_timeout", "the GPU box took too long", { cause: describe(answer) });
  }
  if (answer.status >= 400) {
    throw new Refusal("bad_gateway", "the GPU box cannot be reached", { cause: describe(answer) });
  }
  throw badAnswer(describe(answer));
}

function head(answer: Response): ResponseInit {
  const headers = new Headers();
  for (const name of RELAYED_HEADERS) {
    const value = answer.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  return { status: answer.status, headers };
}

async function checkedBody(answer: Response, stop: Stop): Promise<BodyInit> {
  if (answer.body === null || !isJson(answer)) {
    await answer.body?.cancel();
    throw badAnswer(describe(answer));
  }
  let peeked;
  try {
    peeked = await peek(answer.body as ReadableStream<Uint8Array<ArrayBuffer>>, CHECKED_BYTES);
  } catch (error) {
    throw explain(error, stop);
  }
  if (!peeked.complete) return peeked.stream;
  try {
    // Strict on purpose: Python writes NaN and Infinity, which no browser can parse.
    JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(peeked.bytes));
  } catch (error) {
    throw badAnswer(error);
  }
  return peeked.bytes;
}

function isJson(answer: Response): boolean {
  const type = answer.headers.get("content-type") ?? "";
  return /^application\/([\w.+-]+\+)?json\s*(;|$)/i.test(type);
}

function isProxyError(answer: Response): boolean {
  return answer.status >= PROXY_STATUS.first && answer.status <= PROXY_STATUS.last &&
    !isJson(answer);
}

function describe(answer: Response): string {
  return `status ${answer.status}, content-type ${answer.headers.get("content-type") ?? "none"}`;
}

function badAnswer(cause: unknown): Refusal {
  return new Refusal("bad_gateway", "the GPU box gave an answer that is not JSON", { cause });
}
