/**
 * The project's own REST API and Storage, by fetch: a client library would be an import from the
 * network. The caller decides with whose rights: a user's token, or the service's secret key.
 */

import type { World } from "../backend_server/backend.ts";
import { Refusal } from "../backend_server/errors.ts";
import { type Env, notConfigured } from "../backend_server/settings.ts";

/** A row of callme.predictions, as the functions need it. */
export interface Prediction {
  id: string;
  user_id: string;
  key: string | null;
  model: string;
  input: Record<string, unknown>;
  status: "starting" | "processing" | "succeeded" | "failed" | "canceled";
  cancel_requested_at: string | null;
  sent_at: string | null;
  [column: string]: unknown;
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

  /** Calls a function of the schema as the service. */
  async rpc<T>(name: string, args: Record<string, unknown>): Promise<T> {
    return await this.#rest("POST", `rpc/${name}`, null, args) as T;
  }

  /** Inserts as this user; the database itself checks the token, the owner and the quota. */
  async insert(as: As, row: Record<string, unknown>): Promise<Prediction> {
    const rows = await this.#rest("POST", "predictions", as, row) as Prediction[];
    return rows[0]!;
  }

  /** The row that this asker may see, or null. */
  async find(as: As, column: "id" | "key", value: string): Promise<Prediction | null> {
    const filter = `${column}=eq.${encodeURIComponent(value)}&limit=1`;
    const rows = await this.#rest("GET", `predictions?${filter}`, as) as Prediction[];
    return rows[0] ?? null;
  }

  async deleteTrash(bucket: string, prefix: string): Promise<void> {
    const filter = `bucket=eq.${encodeURIComponent(bucket)}&prefix=eq.${
      encodeURIComponent(prefix)
    }`;
    await this.#rest("DELETE", `trash?${filter}`, null);
  }

  /** A URL under which a file can be read for `seconds`; null when there is no such file. */
  async signedUrl(bucket: string, path: string, seconds: number): Promise<string | null> {
    const answer = await this.#storage("POST", `object/sign/${bucket}/${encodePath(path)}`, {
      expiresIn: seconds,
    });
    if (answer === null) return null;
    return `${this.url}/storage/v1${(answer as { signedURL: string }).signedURL}`;
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

  async #rest(method: string, path: string, as: As, body?: unknown): Promise<unknown> {
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
    const response = await this.#fetch(method, `storage/v1/${path}`, null, body, {
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
    body: unknown,
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
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
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
