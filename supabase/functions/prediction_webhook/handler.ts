/**
 * What the box reports. `start`, `progress` and `completed` change the row, in whichever order and
 * however often they come. `files` is a question: the answer says where to upload each output file,
 * so that files go from the box to Storage and never through here.
 */

import { concat } from "../backend_server/body.ts";
import { Refusal } from "../backend_server/errors.ts";
import { DatabaseError, Platform } from "../_shared/platform.ts";
import { type Deps, type Entry, parseObject, readBody } from "../_shared/serve.ts";
import { isSigned, isUrlToken, readSecrets } from "../_shared/webhook_signature.ts";

export const METHODS = ["POST"];
// A row takes an output of 1 MiB. A larger body is read too, so that the row can say why it failed.
const BODY_BYTES = 8 * 1024 * 1024;
const EVENT_BYTES = 2 * 1024 * 1024;
// Only the database parses a larger event: here it could take over 100 ms of processor.
const PARSED_BYTES = 64 * 1024;
const MAX_FILES = 100;
// Each file takes a request to Storage. The box asks for at most so many at a time.
const MAX_ASKED = 25;
const FILE_NAME = /^[A-Za-z0-9_-][A-Za-z0-9_.~-]{0,199}$/;
const encoder = new TextEncoder();

export async function respond(request: Request, deps: Deps, entry: Entry): Promise<Response> {
  const secrets = readSecrets(deps.env);
  const params = new URL(request.url).searchParams;
  const id = params.get("prediction") ?? "";
  // Before the body is read: the URL alone says whether this function has given it away.
  if (!await isUrlToken(params.get("token") ?? "", id, secrets)) throw notSigned();
  entry.prediction = id;
  const platform = new Platform(deps.env, deps);
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await readBody(request, deps, BODY_BYTES);
  } catch (error) {
    if (!(error instanceof Refusal) || error.code !== "payload_too_large") throw error;
    // Unread, so the signature cannot be checked: the token alone, which the box has, lets its
    // holder end this one row as failed. The box's retries would be too large too.
    await request.body?.cancel().catch(() => {});
    return await apply(tooLarge(id), platform, entry);
  }
  if (!await isSigned(request.headers, bytes, secrets, deps.now())) throw notSigned();
  if (bytes.length > EVENT_BYTES) return await apply(tooLarge(id), platform, entry);
  if (bytes.length > PARSED_BYTES) {
    // The box begins each report with the id.
    const head = new TextDecoder().decode(bytes.subarray(0, 100));
    if (!head.startsWith(`{"id":"${id}",`) || head.includes('"event":"files"')) throw notSigned();
    entry.event = "large";
    return await apply(bytes, platform, entry, id);
  }
  const event = parseObject(bytes);
  if (event.id !== id) throw notSigned();
  entry.event = event.event ?? event.status;
  return event.event === "files"
    ? await giveUploadUrls(id, event, platform)
    : await apply(event, platform, entry);
}

/** `event`: an object, or the JSON of one. */
async function apply(
  event: Record<string, unknown> | Uint8Array<ArrayBuffer>,
  platform: Platform,
  entry: Entry,
  id = (event as Record<string, unknown>).id,
): Promise<Response> {
  const args = event instanceof Uint8Array ? wrapped(event) : { event };
  try {
    entry.applied = await platform.rpc<string>("apply_event", args);
  } catch (error) {
    // The database does not take this result, and will not take it later either.
    if (!(error instanceof DatabaseError) || error.status >= 500 || error.status === 401) {
      throw error;
    }
    entry.cause = `${error.code} ${error.message}`;
    const error_text = `The database does not take the result: ${error.message}`;
    entry.applied = await platform.rpc<string>("apply_event", {
      event: { id, status: "failed", error_code: "result_refused", error: error_text },
    });
  }
  return entry.applied === "unknown" ? gone() : new Response(null, { status: 204 });
}

/** `{"event": <event>}` */
function wrapped(event: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const pieces = [encoder.encode('{"event":'), event, encoder.encode("}")];
  return concat(pieces, pieces.reduce((size, piece) => size + piece.length, 0));
}

async function giveUploadUrls(
  id: string,
  { files, total }: Record<string, unknown>,
  platform: Platform,
): Promise<Response> {
  const row = await platform.owner(id);
  if (row === null) return gone();
  const listed: unknown[] = Array.isArray(files) ? files : [];
  // A prediction that was cancelled meanwhile needs no files.
  if (row.status !== "starting" && row.status !== "processing") {
    return Response.json({ uploads: {} });
  }
  const names = listed.map((file) => (file as { name?: unknown } | null)?.name);
  const refusal = refusalOf(names, Math.max(names.length, Number(total) || 0));
  if (refusal) {
    // The row must not name files that are not there.
    await platform.rpc<string>("apply_event", { event: { id, status: "failed", ...refusal } });
    return Response.json({ uploads: {} });
  }
  const uploads = await Promise.all((names as string[]).map(async (name) => {
    const path = `${row.user_id}/${id}/${name}`;
    return [name, await platform.uploadUrl("callme-outputs", path)] as const;
  }));
  return Response.json({ uploads: Object.fromEntries(uploads) });
}

/** Why files with these names cannot be kept, if so. */
function refusalOf(
  names: unknown[],
  total: number,
): { error_code: string; error: string } | undefined {
  if (total > MAX_FILES) {
    const error = `Cannot keep ${total} files: the most is ${MAX_FILES}`;
    return { error_code: "output_too_large", error };
  }
  if (names.length > MAX_ASKED) {
    const error = `Cannot keep ${names.length} files: the box must ask for ${MAX_ASKED} at a time`;
    return { error_code: "result_refused", error };
  }
  const wrong = names.findIndex((name) => typeof name !== "string" || !FILE_NAME.test(name));
  if (wrong < 0) return undefined;
  // No half of a character of two units: the database refuses it.
  const shown = JSON.stringify(names[wrong] ?? null).slice(0, 250).replace(/[\ud800-\udbff]$/, "");
  const rule = "must be 1 to 200 of A-Z a-z 0-9 . _ ~ -, and not begin with . or ~";
  return { error_code: "result_refused", error: `Cannot keep a file named ${shown}: it ${rule}` };
}

/** What is applied in place of an event that no row takes. */
function tooLarge(id: string): Record<string, unknown> {
  const error = "The output is over 1 MiB of JSON";
  return { id, status: "failed", error_code: "output_too_large", error };
}

/** 410: the box need not try again. */
function gone(): Response {
  return Response.json({ error: { code: "not_found", message: "There is no such prediction" } }, {
    status: 410,
  });
}

function notSigned(): Refusal {
  return new Refusal("unauthorized", "This is not a webhook of the GPU box");
}
