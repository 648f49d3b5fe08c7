// The only module that knows the key. It is kept in the tab's session and sent in a header, never in
// a URL.

const KEY = "callme_key";
/** The folder above `static/`, where the APIs are. */
export const ROOT = new URL("../../", import.meta.url);

let memory = ""; // where the browser refuses sessionStorage
let asking = null;
let ask = async () => false;
const watchers = new Set();

/** The key of this session, "" without one. */
export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory;
  }
}

/** Keep a key for this session; "" forgets it. */
export function setKey(value) {
  memory = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // it stays in memory
  }
  watchers.forEach((watcher) => watcher(value));
}

/** Call `watcher` when the key changes. */
export function onKey(watcher) {
  watchers.add(watcher);
}

/** `prompt(message)`: asks the person for a key; resolves to whether one was given. */
export function askWith(prompt) {
  ask = prompt;
}

/** An error of the box. `problems`: [{input, message}]. `status` 0: it was not reached. */
export class ApiError extends Error {
  constructor(status, code, message, { problems = [], logTail = [], retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, problems, logTail, retryAfter });
  }
}

/** A path of the box as a URL. */
export const url = (path) => new URL(path.replace(/^\//, ""), ROOT);

/**
 * Send a request with the key. While the box answers 401, the person is asked for a key and the
 * request is sent again. Throws ApiError for every other answer that is not 2xx.
 */
export async function request(path, options = {}) {
  for (;;) {
    const used = key();
    const headers = { Accept: "application/json", ...options.headers };
    if (used) headers.Authorization = `Bearer ${used}`;
    let response;
    try {
      response = await fetch(url(path), { ...options, headers, cache: "no-store" });
    } catch (error) {
      throw unreachable(error);
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401 || options.quiet) throw error;
    if (used === key() && !(await askOnce(used))) throw error;
  }
}

/** What a person reads of a connection that broke, in the middle of an answer too. */
export function unreachable(error) {
  if (error.name === "AbortError") return error;
  return new ApiError(0, "unreachable", "The box cannot be reached. Is it running, and is this machine online?");
}

function askOnce(used) {
  const wrong = used
    ? "The box does not accept this key. It may be misspelt, or may have been revoked."
    : "";
  asking ??= ask(wrong).finally(() => {
    asking = null;
  });
  return asking;
}

/** The JSON that the box answers. A whole number that JavaScript would round is its digits as text. */
export async function json(path, options) {
  const response = await request(path, options);
  let text;
  try {
    text = await response.text();
  } catch (error) {
    throw unreachable(error); // it ended in the middle of its answer
  }
  return /\d{16}/.test(text) ? JSON.parse(text, exact) : JSON.parse(text);
}

function exact(_, value, context) {
  const rounded = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
  return rounded && /^-?\d+$/.test(context?.source ?? "") ? context.source : value;
}

async function errorOf(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // a proxy's page: the status has to do
  }
  const after = Number(response.headers.get("Retry-After"));
  const told = body?.error ?? {};
  const listed = Array.isArray(body?.detail) ? body.detail : [];
  const problems =
    told.details?.problems ??
    body?.invalid_fields?.map((f) => ({ input: f.field?.replace(/^input\./, ""), message: f.description })) ??
    listed.map((d) => ({ input: d.loc?.at(-1), message: d.msg }));
  const message =
    told.message ?? listed[0]?.msg ?? (typeof body?.detail === "string" ? body.detail : null) ?? `The box answered ${response.status}.`;
  return new ApiError(response.status, told.code ?? body?.code ?? "", message, {
    problems,
    logTail: told.details?.log_tail ?? [],
    retryAfter: after > 0 ? after : null,
  });
}
