/**
 * Predictions in the app's own database.
 *
 *   POST   /predictions                    {model, input, key?}: a row, and the box has it
 *   DELETE /predictions/<id>               cancel
 *   DELETE /predictions/<id>?forget=true   delete what has ended, with its files
 *   POST   /predictions/sweep              do what is due: for pg_cron, or anybody
 *
 * A row is written before the box is asked. If the box cannot be reached, the row stays and is sent
 * later: by a sweep, or when the client repeats its POST with the same key.
 */

import { Refusal } from "../backend_server/errors.ts";
import { traceHeaders } from "../backend_server/trace.ts";
import { DatabaseError, Platform, type Prediction, rowJson } from "../_shared/platform.ts";
import { type Deps, type Entry, readBody } from "../_shared/serve.ts";
import { cancelAtBox, sendToBox } from "./box.ts";
import { readWanted } from "./request.ts";

export const METHODS = ["POST", "DELETE"];
const BODY_BYTES = 320 * 1024; // the database takes inputs of 256 KiB
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
// Each may have the largest input. callme.tick() has the same number.
const AT_ONCE = 2;

export async function respond(request: Request, deps: Deps, entry: Entry): Promise<Response> {
  const url = new URL(request.url);
  const [last = "", above = ""] = url.pathname.split("/").filter((part) => part !== "").reverse();
  const platform = new Platform(deps.env, deps);
  if (request.method === "POST" && last === "sweep") return await sweep(platform, deps, entry);
  const user = readUser(request);
  if (request.method === "POST") return await create(request, user, platform, deps, entry);
  if (above === "" || !UUID.test(last)) {
    throw new Refusal("not_found", "Cannot find it: the path must be predictions/<id>");
  }
  entry.prediction = last;
  if (url.searchParams.get("forget") === "true") return await forget(last, user, platform);
  return await cancel(last, user, platform, deps);
}

async function create(
  request: Request,
  user: string,
  platform: Platform,
  deps: Deps,
  entry: Entry,
): Promise<Response> {
  const wanted = readWanted(await readBody(request, deps, BODY_BYTES));
  let row: Prediction | null;
  let status = 201;
  try {
    row = await platform.insert(user, wanted.row, wanted.input);
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.code !== "23505" || !wanted.key) throw error;
    status = 200;
    row = await platform.find(user, "key", wanted.key);
    if (row === null) throw new Refusal("conflict", "The prediction with this key is gone");
    if (row.model !== wanted.model) {
      throw new Refusal("conflict", "This key belongs to a prediction of another model");
    }
  }
  entry.prediction = row.id;
  if (row.sent_at === null && row.status === "starting") {
    const [claimed] = await platform.rows("claim", { wanted: row.id, most: 1 });
    if (claimed) {
      const trace = traceHeaders(request.headers);
      row = await sendToBox(claimed, platform, deps, entry, trace);
    }
  }
  return shown(row, status);
}

async function cancel(
  id: string,
  user: string,
  platform: Platform,
  deps: Deps,
): Promise<Response> {
  // Read with the user's rights: the database says whose it is.
  const mine = await findMine(id, user, platform);
  const args = { wanted: id, owner: mine.user_id };
  const [row = mine] = await platform.rows("cancel", args);
  if (row.sent_at !== null && !hasEnded(row)) await cancelAtBox(row, platform, deps);
  return shown(row, hasEnded(row) ? 200 : 202);
}

async function forget(id: string, user: string, platform: Platform): Promise<Response> {
  const { user_id } = await findMine(id, user, platform);
  if (!await platform.rpc<boolean>("forget", { wanted: id, owner: user_id })) {
    throw new Refusal("conflict", "Cannot delete it while it runs: cancel it first");
  }
  await emptyTrash(platform);
  return new Response(null, { status: 204 });
}

/** Needs no proof of who asks: it does only what is due, and each thing once. */
async function sweep(platform: Platform, deps: Deps, entry: Entry): Promise<Response> {
  const rows = await platform.rows("claim", { most: AT_ONCE });
  await Promise.all(
    rows.map((row) =>
      row.sent_at === null
        ? sendToBox(row, platform, deps, entry)
        : cancelAtBox(row, platform, deps)
    ),
  );
  const removed = await emptyTrash(platform);
  return Response.json({ tried: rows.length, removed });
}

async function emptyTrash(platform: Platform): Promise<number> {
  const trash = await platform.rpc<{ bucket: string; prefix: string }[]>("claim_trash", {
    most: AT_ONCE,
  });
  const removed = await Promise.all(trash.map(async ({ bucket, prefix }) => {
    const count = await platform.removeFiles(bucket, prefix);
    await platform.deleteTrash(bucket, prefix);
    return count;
  }));
  return removed.reduce((sum, count) => sum + count, 0);
}

async function findMine(id: string, user: string, platform: Platform): Promise<Prediction> {
  const row = await platform.find(user, "id", id);
  if (row === null) throw new Refusal("not_found", `Cannot find prediction '${id}'`);
  return row;
}

function readUser(request: Request): string {
  const header = request.headers.get("authorization") ?? "";
  if (!/^Bearer +\S+$/i.test(header)) throw new Refusal("unauthorized", "Sign in first");
  return header;
}

function hasEnded(row: Prediction): boolean {
  return row.status !== "starting" && row.status !== "processing";
}

function shown(row: Prediction, status: number): Response {
  return new Response(rowJson(row), { status, headers: { "Content-Type": "application/json" } });
}
