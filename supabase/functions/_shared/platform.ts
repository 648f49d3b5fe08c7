/**
 * The project's own REST API and Storage, by fetch: a client library would be an import from the
 * network. The caller decides with whose rights: a user's token, or the service's secret key.
 */

import type { World } from "../backend_server/backend.ts";
import { Refusal } from "../backend_server/errors.ts";
import { type Env, notConfigured } from "../backend_server/settings.ts";

/**
 * A row of callme.predictions, as an app sees it. `input`, `output` and `metrics` are JSON as text:
 * to build 256 KiB of small objects, and to write them out again, takes 60 ms of processor each time.
 */
export interface Prediction {
  id: string;
  user_id: string;
  key: string | null;
  model: string;
  input: string;
  output: string | null;
  metrics: string;
  status: "starting" | "processing" | "succeeded" | "failed" | "canceled";
  cancel_requested_at: string | null;
  sent_at: string | null;
  [column: string]: unknown;
}

// What is for the functions only is not among them: tries, next_try_at, event_at, box.
const ALL_BUT_INPUT = [
  "id,user_id,key,model,status,progress,error,error_code,log_tail,created_at,started_at",
  "completed_at,updated_at,version,cancel_requested_at,sent_at,output::text,metrics::text",
].join(",");
const COLUMNS = `${ALL_BUT_INPUT},input::text`;

/** The row as JSON. */
export function rowJson({ input, output, metrics, ...plain }: Prediction): string {
  const others = `"input":${input},"output":${output ?? "null"},"metrics":${metrics}`;
  return `${JSON.stringify(plain).slice(0, -1)},${others}}`;
}

/** What PostgREST says when it refuses; `status` is HTTP's. */
export class DatabaseError extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string | undefined;

  constructor(status: number, code: string, message: string, hint: string | undefined) {
    super(message);
    this.name = "DatabaseError";
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

export const BUCKETS = ["callme-inputs", "callme-outputs"];
const SCHEMA = "callme";
const TIMEOUT_MS = 20_000;

/** Who asks: a user's `Authorization` header, or null for the service. */
export type As = string | null;

export class Platform {
  readonly url: string;
  readonly functionsUrl: string;
  #secretKey: string;
  #publicKey: string;
  #world: World;

  /** Reads the variables that Supabase sets itself. Throws `not_configured`. */
  constructor(env: Env, world: World) {
    this.url = (env("SUPABASE_URL") ?? "").replace(/\/+$/, "");
    if (!this.url) throw notConfigured("'SUPABASE_URL' is not set");
    this.functionsUrl = env("CALLME_FUNCTIONS_URL") || `${this.url}/functions/v1`;
    this.#secretKey = readKey(env, "SUPABASE_SECRET_KEYS", "SUPABASE_SERVICE_ROLE_KEY");
    this.#publicKey = readKey(env, "SUPABASE_PUBLISHABLE_KEYS", "SUPABASE_ANON_KEY");
    this.#world = world;
  }

  /** Calls a function of the schema as the service. `args`: an object, or its JSON. */
  async rpc<T>(name: string, args: Record<string, unknown> | Uint8Array<ArrayBuffer>): Promise<T> {
    const body = args instanceof Uint8Array ? args : JSON.stringify(args);
    return await this.#rest("POST", `rpc/${name}`, null, body) as T;
  }

  /** The same for a function that returns predictions. */
  async rows(name: string, args: Record<string, unknown>): Promise<Prediction[]> {
    return await this.rpc<Prediction[]>(`${name}?select=${COLUMNS}`, args);
  }

  /**
   * Inserts `row`, which is JSON with this `input`, as this user; the database itself checks the
   * token, the owner and the quota.
   */
  async insert(as: As, row: Uint8Array<ArrayBuffer>, input: string): Promise<Prediction> {
    const path = `predictions?select=${ALL_BUT_INPUT}`;
    const rows = await this.#rest("POST", path, as, row) as Prediction[];
    return { ...rows[0]!, input };
  }

  /** Notes that the box has it. Returns the row as it is then. */
  async markSent(row: Prediction, toBox: string): Promise<Prediction> {
    const args = { sent: row.id, to_box: toBox };
    const rows = await this.rpc<Prediction[]>(`mark_sent?select=${ALL_BUT_INPUT}`, args);
    return { ...row, ...rows[0] };
  }

  /** The row that this asker may see, or null. */
  async find(as: As, column: "id" | "key", value: string): Promise<Prediction | null> {
    return (await this.#find(COLUMNS, as, column, value))[0] ?? null;
  }

  /** Whose the row is and how far; for the service. */
  async owner(id: string): Promise<Pick<Prediction, "user_id" | "status"> | null> {
    return (await this.#find("user_id,status", null, "id", id))[0] ?? null;
  }

  async #find(columns: string, as: As, column: string, value: string): Promise<Prediction[]> {
    const filter = `${column}=eq.${encodeURIComponent(value)}&limit=1`;
    return await this.#rest("GET", `predictions?select=${columns}&${filter}`, as) as Prediction[];
  }

  async deleteTrash(bucket: string, prefix: string): Promise<void> {
    const filter = `bucket=eq.${encodeURIComponent(bucket)}&prefix=eq.${
      encodeURIComponent(prefix)
    }`;
    await this.#rest("DELETE", `trash?${filter}`, null);
  }

  /** URLs under which files can be read for `seconds`, by path; those that are missing left out. */
  async signedUrls(
    bucket: string,
    paths: readonly string[],
    seconds: number,
  ): Promise<Map<string, string>> {
    if (paths.length === 0) return new Map();
    const body = { expiresIn: seconds, paths };
    const answer = await this.#storage("POST", `object/sign/${bucket}`, body);
    const signed = (answer ?? []) as { path: string | null; signedURL: string | null }[];
    return new Map(
      signed.flatMap(({ path, signedURL }) =>
        // As it is, it has blanks where the path has them.
        path && signedURL ? [[path, encodeURI(`${this.url}/storage/v1${signedURL}`)] as const] : []
      ),
    );
  }

  /** A URL to which a file can be sent once with PUT, within two hours; it replaces an older one. */
  async uploadUrl(bucket: string, path: string): Promise<string> {
    const answer = await this.#storage(
      "POST",
      `object/upload/sign/${bucket}/${encodePath(path)}`,
      {},
    );
    if (answer === null) throw new Refusal("bad_gateway", `Cannot write to the bucket ${bucket}`);
    return `${this.url}/storage/v1${(answer as { url: string }).url}`;
  }

  /** Removes one file, or all files of a folder when `prefix` ends in a slash. Returns how many. */
  async removeFiles(bucket: string, prefix: string): Promise<number> {
    let paths = [prefix];
    if (prefix.endsWith("/")) {
      const listed = await this.#storage("POST", `object/list/${bucket}`, { prefix, limit: 1000 });
      paths = (listed as { name: string }[] | null ?? []).map((file) => prefix + file.name);
    }
    if (paths.length > 0) await this.#storage("DELETE", `object/${bucket}`, { prefixes: paths });
    return paths.length;
  }

  async #rest(method: string, path: string, as: As, body?: BodyInit): Promise<unknown> {
    const response = await this.#fetch(method, `rest/v1/${path}`, as, body, {
      "Accept-Profile": SCHEMA,
      "Content-Profile": SCHEMA,
      "Prefer": "return=representation",
    });
    const text = await response.text();
    if (response.ok) return text === "" ? null : JSON.parse(text);
    const said = readObject(text);
    throw new DatabaseError(
      response.status,
      String(said.code ?? ""),
      String(said.message ?? text).slice(0, 500),
      typeof said.hint === "string" ? said.hint : undefined,
    );
  }

  /** Null when Storage knows no such file or bucket. */
  async #storage(method: string, path: string, body: unknown): Promise<unknown> {
    const json = JSON.stringify(body);
    const response = await this.#fetch(method, `storage/v1/${path}`, null, json, {
      "x-upsert": "true",
    });
    const text = await response.text();
    if (response.ok) return JSON.parse(text);
    // Storage answers 400 for much, and says 404 in the body.
    const { statusCode, error } = readObject(text);
    if (response.status === 404 || String(statusCode) === "404" || error === "not_found") {
      return null;
    }
    throw new Refusal("bad_gateway", "Storage cannot be used now", {
      cause: `${path.split("/")[1]} ${response.status} ${text.slice(0, 200)}`,
    });
  }

  async #fetch(
    method: string,
    path: string,
    as: As,
    body: BodyInit | undefined,
    extra: Record<string, string>,
  ): Promise<Response> {
    const key = as === null ? this.#secretKey : this.#publicKey;
    // A key of the new kind is no JWT and must not be sent as a bearer token.
    const bearer = as ?? (key.startsWith("sb_") ? null : `Bearer ${key}`);
    try {
      return await this.#world.fetch(`${this.url}/${path}`, {
        method,
        headers: {
          apikey: key,
          ...(bearer === null ? {} : { Authorization: bearer }),
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          ...extra,
        },
        ...(body === undefined ? {} : { body }),
        signal: this.#world.after(TIMEOUT_MS),
      });
    } catch (cause) {
      throw new Refusal("service_unavailable", "The database cannot be reached", { cause });
    }
  }
}

function readKey(env: Env, name: string, legacy: string): string {
  const keys = readObject(env(name) ?? "");
  const key = keys.default ?? Object.values(keys)[0] ?? env(legacy);
  if (typeof key !== "string" || key === "") throw notConfigured(`'${name}' is not set`);
  return key;
}

function readObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
  } catch {
    return {};
  }
}

function encodePath(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}
