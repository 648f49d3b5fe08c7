/** Who may call, where the platform itself does not ask (`verify_jwt = false`). */

import { Refusal } from "./errors.ts";
import { type Env, notConfigured, readList } from "./settings.ts";

/**
 * `BACKEND_SERVER_AUTH`: `none` (the default) or `publishable`, which asks for one of the project's
 * publishable keys in the `apikey` header, as supabase-js sends it. Throws `unauthorized`.
 */
export async function admit(request: Request, env: Env): Promise<void> {
  const mode = env("BACKEND_SERVER_AUTH")?.trim() || "none";
  if (mode === "none") return;
  if (mode !== "publishable") {
    throw notConfigured(`'BACKEND_SERVER_AUTH' must be none or publishable, got ${mode}`);
  }
  const given = request.headers.get("apikey");
  const keys = publishableKeys(env);
  const matches = given === null ? [] : await Promise.all(keys.map((key) => same(key, given)));
  if (!matches.includes(true)) {
    throw new Refusal("unauthorized", "Cannot run: 'apikey' must be a publishable key");
  }
}

/** Supabase sets these itself: a JSON object of publishable keys, and the older anon key. */
function publishableKeys(env: Env): string[] {
  const keys = readList(env("SUPABASE_ANON_KEY"));
  try {
    const named: unknown = JSON.parse(env("SUPABASE_PUBLISHABLE_KEYS") || "{}");
    keys.push(...Object.values(named as object).filter((key) => typeof key === "string" && key));
  } catch (cause) {
    throw new Refusal(
      "not_configured",
      "Cannot check 'apikey': the project's keys are unreadable",
      {
        cause,
      },
    );
  }
  return keys;
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
