/** What the box is asked: to take a prediction, and to cancel it. */

import { send } from "../backend_server/backend.ts";
import { Refusal } from "../backend_server/errors.ts";
import { type Backend, readBackend } from "../backend_server/settings.ts";
import { BUCKETS, type Platform, type Prediction } from "../_shared/platform.ts";
import type { Deps, Entry } from "../_shared/serve.ts";
import { readSecrets, urlToken } from "../_shared/webhook_signature.ts";
import { findReferences, replaceReferences, SCHEME } from "./references.ts";

const EVENTS = ["start", "progress", "files", "completed"];
// In how many places of an input. Each gets a URL of half a kilobyte.
const MAX_FILES = 100;
/** The box reads its inputs before it answers. */
const INPUT_URL_S = 600;
const TIMEOUT_MS = 60_000;
/** Statuses that another try may change. All other errors end the prediction. */
const TEMPORARY = new Set([401, 403, 408, 425, 429]);

/**
 * Gives the box a prediction that was claimed. It has the row's id there, so it never runs twice.
 * Returns the row as it is then. What cannot be sent now stays as it is, and is due again later.
 */
export async function sendToBox(
  row: Prediction,
  platform: Platform,
  deps: Deps,
  entry: Entry,
  trace: Record<string, string> = {},
): Promise<Prediction> {
  let answer: Response;
  try {
    const backend = readBackend(deps.env);
    const body = await describe(row, platform, deps);
    answer = await ask("PUT", path(row), body, backend, deps, trace);
    // 409: an earlier try has arrived, with other URLs of the same files.
    if (answer.ok || answer.status === 409) {
      await answer.body?.cancel();
      const sent = await platform.markSent(row, backend.keyId ?? "box");
      // The user has cancelled it while it was on its way.
      if (sent.cancel_requested_at !== null) await cancelAtBox(sent, platform, deps);
      return sent;
    }
  } catch (error) {
    if (error instanceof Refusal && error.code === "invalid_input") {
      return await fail(row, "invalid_input", error.message, platform);
    }
    entry.box = error instanceof Refusal ? error.code : "internal_error";
    entry.cause = String(error instanceof Refusal ? error.cause ?? error.message : error);
    return row;
  }
  const { code, message } = await explain(answer);
  entry.box = answer.status;
  if (answer.status >= 500 || answer.status < 400 || TEMPORARY.has(answer.status)) return row;
  return await fail(row, code, message, platform);
}

/** Tells the box that nobody wants it any more. Its own report ends the row. */
export async function cancelAtBox(
  row: Prediction,
  platform: Platform,
  deps: Deps,
): Promise<void> {
  try {
    const answer = await ask("POST", `${path(row)}/cancel`, "{}", readBackend(deps.env), deps);
    await answer.body?.cancel();
    if (answer.ok) await platform.rpc("mark_canceled_at_box", { told: row.id });
    // The box does not know it: it was never taken there, or its result is no longer kept.
    if (answer.status === 404) {
      await platform.rpc("apply_event", { event: { id: row.id, status: "canceled" } });
    }
  } catch (error) {
    if (!(error instanceof Refusal)) throw error; // not reached: it is due again later
  }
}

/** The request of Cog's API: inputs with URLs in place of paths, and where to report. */
async function describe(row: Prediction, platform: Platform, deps: Deps): Promise<string> {
  const [secret] = readSecrets(deps.env);
  const token = await urlToken(secret!, row.id);
  const request = {
    id: row.id,
    webhook: `${platform.functionsUrl}/prediction_webhook?prediction=${row.id}&token=${token}`,
    webhook_events_filter: EVENTS,
  };
  const input = await withUrls(row, platform);
  return `${JSON.stringify(request).slice(0, -1)},"input":${input}}`;
}

/** The input with a short-lived URL in place of each `storage://<bucket>/<path>`. */
async function withUrls(row: Prediction, platform: Platform): Promise<string> {
  const found = findReferences(row.input);
  if (found.length > MAX_FILES) {
    throw refused(`Cannot use ${found.length} files: the most is ${MAX_FILES}`);
  }
  const wanted = new Set(found.map(({ reference }) => reference));
  const places = [...wanted].map((reference) => placeOf(reference, row.user_id));
  const signed = await Promise.all(BUCKETS.map((bucket) => {
    const paths = places.filter((place) => place.bucket === bucket).map(({ path }) => path);
    return platform.signedUrls(bucket, paths, INPUT_URL_S);
  }));
  const urls = new Map(places.map(({ reference, bucket, path }) => {
    const url = signed[BUCKETS.indexOf(bucket)]!.get(path);
    if (url === undefined) throw refused(`Cannot find the file ${reference.slice(0, 200)}`);
    return [reference, url];
  }));
  return replaceReferences(row.input, found, urls);
}

function placeOf(reference: string, user: string) {
  const [bucket = "", owner = "", ...rest] = reference.slice(SCHEME.length).split("/");
  // The database has checked this at the insert. Here the service's rights are used, so once more.
  const isOwn = BUCKETS.includes(bucket) && owner === user && rest.length > 0 &&
    rest.every((part) => part !== "" && part !== "." && part !== "..");
  if (!isOwn) throw refused(`Cannot find the file ${reference.slice(0, 200)}`);
  return { reference, bucket, path: [owner, ...rest].join("/") };
}

function refused(message: string): Refusal {
  return new Refusal("invalid_input", message);
}

async function fail(
  row: Prediction,
  code: string,
  message: string,
  platform: Platform,
): Promise<Prediction> {
  const event = { id: row.id, status: "failed", error_code: code, error: message };
  await platform.rpc("apply_event", { event });
  return await platform.find(null, "id", row.id) ?? row;
}

function path(row: Prediction): string {
  return `/models/${row.model}/predictions/${row.id}`;
}

async function ask(
  method: "PUT" | "POST",
  path: string,
  body: string,
  backend: Backend,
  deps: Deps,
  trace: Record<string, string> = {},
): Promise<Response> {
  const pieces = [new TextEncoder().encode(body) as Uint8Array<ArrayBuffer>];
  const request = { method, path, contentType: "application/json", pieces, async: true, trace };
  const stop = { deadline: deps.after(TIMEOUT_MS), gone: new AbortController().signal };
  return await send(request, backend, deps.newId(), deps, stop, () => {});
}

const CODES: Record<number, string> = {
  404: "unknown_model",
  413: "payload_too_large",
  422: "invalid_input",
};

/** The box's error, in whichever of its APIs' shapes. */
async function explain(answer: Response): Promise<{ code: string; message: string }> {
  const code = CODES[answer.status] ?? "refused";
  const message = `The GPU box answered ${answer.status}`;
  try {
    const { error, detail } = JSON.parse((await answer.text()).slice(0, 65_536));
    const said = error?.message ??
      (Array.isArray(detail) ? detail.map(problem).join("; ") : detail);
    const own = typeof error?.code === "string" ? error.code : code;
    return { code: own, message: typeof said === "string" ? said.slice(0, 2000) : message };
  } catch {
    return { code, message };
  }
}

/** One of Cog's problems: `{"loc": ["body", "input", "seed"], "msg": "…"}`. */
function problem({ loc, msg }: { loc?: unknown; msg?: unknown }): string {
  return `${Array.isArray(loc) ? loc.at(-1) : "input"}: ${msg}`;
}
