/** Signatures of webhooks (https://www.standardwebhooks.com), and of webhooks' own URLs. */

import { type Env, notConfigured } from "../backend_server/settings.ts";

/** How far the box's clock and ours may be apart, and how long a webhook can be repeated. */
const WINDOW_S = 300;
const encoder = new TextEncoder();

/**
 * The secrets in `CALLME_WEBHOOK_SECRET`, the newest first: `whsec_…`, several divided by blanks
 * while one takes the place of another. Throws `not_configured`.
 */
export function readSecrets(env: Env): Uint8Array<ArrayBuffer>[] {
  const texts = (env("CALLME_WEBHOOK_SECRET") ?? "").split(/[\s,]+/).filter((text) => text !== "");
  if (texts.length === 0) throw notConfigured("'CALLME_WEBHOOK_SECRET' is not set");
  return texts.map((text) => {
    const bytes = decode(text.replace(/^whsec_/, ""));
    if (bytes === null || bytes.length < 24) {
      throw notConfigured("'CALLME_WEBHOOK_SECRET' must be whsec_ and at least 24 bytes in base64");
    }
    return bytes;
  });
}

/** Whether one of the secrets has signed this body just now. */
export async function isSigned(
  headers: Headers,
  body: Uint8Array<ArrayBuffer>,
  secrets: readonly Uint8Array<ArrayBuffer>[],
  nowMs: number,
): Promise<boolean> {
  const id = headers.get("webhook-id") ?? "";
  const timestamp = headers.get("webhook-timestamp") ?? "";
  if (!id || !/^\d{1,12}$/.test(timestamp)) return false;
  if (Math.abs(nowMs / 1000 - Number(timestamp)) > WINDOW_S) return false;
  const head = encoder.encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  const given = (headers.get("webhook-signature") ?? "").split(" ", 16)
    .filter((one) => one.startsWith("v1,"));
  for (const secret of secrets) {
    // Once, however many signatures are given.
    const right = `v1,${btoa(String.fromCharCode(...await hmac(secret, signed)))}`;
    if (given.some((one) => isSame(one, right))) return true;
  }
  return false;
}

/**
 * Proof that this function itself gave the box the URL for a prediction. The box signs the webhooks
 * of all its callers with one secret: without this, another caller of the box could report a result
 * for a prediction that is not its own.
 */
export async function urlToken(secret: Uint8Array<ArrayBuffer>, id: string): Promise<string> {
  const bytes = await hmac(secret, encoder.encode(`callme webhook url\n${id}`));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether one of the secrets has made this token. */
export async function isUrlToken(
  token: string,
  id: string,
  secrets: readonly Uint8Array<ArrayBuffer>[],
): Promise<boolean> {
  for (const secret of secrets) {
    if (isSame(token, await urlToken(secret, id))) return true;
  }
  return false;
}

async function hmac(
  secret: Uint8Array<ArrayBuffer>,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", secret, algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes));
}

/** The time taken says nothing of how much is right. */
function isSame(given: string, right: string): boolean {
  let difference = right.length ^ given.length;
  for (let i = 0; i < right.length; i++) difference |= right.charCodeAt(i) ^ given.charCodeAt(i);
  return difference === 0;
}

function decode(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    const binary = atob(text);
    return Uint8Array.from(binary, (char) => char.charCodeAt(0));
  } catch {
    return null;
  }
}
