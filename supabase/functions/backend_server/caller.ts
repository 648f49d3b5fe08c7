/** Who may call, where the platform itself does not ask (`verify_jwt = false`). */

import { Refusal } from "./errors.ts";
import { isUserToken, type PublicKey } from "./jwt.ts";
import { type Env, readList } from "./settings.ts";

/**
 * `BACKEND_SERVER_AUTH`: `none` (the default); `publishable` asks for one of the project's
 * publishable keys in the `apikey` header; `user` for the access token of a signed-in user. The
 * keys to check against are secrets that Supabase sets itself. Throws `unauthorized`.
 */
export async function admit(request: Request, env: Env, nowMs: number): Promise<void> {
  const mode = env("BACKEND_SERVER_AUTH")?.trim() || "none";
  if (mode === "none") return;
  if (mode !== "publishable" && mode !== "user") {
    throw cannotCheck(`'BACKEND_SERVER_AUTH' must be none, publishable or user, got ${mode}`);
  }
  if (mode === "publishable" && !await hasPublishableKey(request, env)) {
    throw new Refusal("unauthorized", "Cannot run: 'apikey' must be a publishable key");
  }
  if (mode === "user" && !await hasUserToken(request, env, nowMs)) {
    throw new Refusal("unauthorized", "Cannot run: 'Authorization' must be a signed-in user's");
  }
}

async function hasPublishableKey(request: Request, env: Env): Promise<boolean> {
  const named = readJson(env, "SUPABASE_PUBLISHABLE_KEYS", "{}") as Record<string, unknown>;
  const keys = [...Object.values(named), ...readList(env("SUPABASE_ANON_KEY"))]
    .filter((key): key is string => typeof key === "string" && key !== "");
  const given = request.headers.get("apikey") ?? "";
  const matches = await Promise.all(keys.map((key) => same(key, given)));
  return matches.includes(true);
}

async function hasUserToken(request: Request, env: Env, nowMs: number): Promise<boolean> {
  const jwks = readJson(env, "SUPABASE_JWKS") as { keys?: unknown };
  const keys = Array.isArray(jwks) ? jwks : jwks.keys;
  if (!Array.isArray(keys)) throw cannotCheck("'SUPABASE_JWKS' must be a JSON Web Key Set");
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "") ?? [];
  return token !== undefined && await isUserToken(token, keys as PublicKey[], nowMs / 1000);
}

function readJson(env: Env, name: string, fallback = ""): object {
  try {
    const value: unknown = JSON.parse(env(name)?.trim() || fallback);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // Said below, for both ways of being wrong.
  }
  throw cannotCheck(`'${name}' must be set to JSON`);
}

function cannotCheck(what: string): Refusal {
  return new Refusal("not_configured", `Cannot check the caller: ${what}`);
}

/** Compares digests, so that the time taken says nothing of how much of the key was right. */
async function same(left: string, right: string): Promise<boolean> {
  const encoder = new TextEncoder();
  const [a, b] = await Promise.all(
    [left, right].map((text) => crypto.subtle.digest("SHA-256", encoder.encode(text))),
  );
  const [x, y] = [new Uint8Array(a!), new Uint8Array(b!)];
  return x.reduce((difference, byte, i) => difference | (byte ^ y[i]!), 0) === 0;
}
