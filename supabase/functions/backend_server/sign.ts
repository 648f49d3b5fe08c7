/**
 * Proof to the GPU box that a request is ours, without sending the key.
 *
 * A quick tunnel's host name can be handed to somebody else once the tunnel is gone; a key sent as
 * a header would then be theirs. The box recomputes the signature, refuses old timestamps and
 * nonces it has seen. What it keeps is not the key but the key's verifier, so that is what signs.
 * The body's hash goes along, so that the box knows whose a request is before it reads the body.
 * tests/edge/signature_vectors.json holds examples both sides are tested with.
 */

import { createHash } from "node:crypto";

export interface ToSign {
  method: string;
  /** Path and query exactly as they go out. */
  path: string;
  /** The content-type header exactly as it goes out; empty when there is none. */
  contentType: string;
  /** The body in pieces: WebCrypto, which hashes no stream, would need it twice in one piece. */
  pieces: readonly Uint8Array[];
  /** Unix time in seconds, decimal. */
  timestamp: string;
  /** Never used twice. */
  nonce: string;
}

/** The verifier of a key is HMAC-SHA256 of this under it; router/keys/key.py has the same. */
const SIGNING_CONTEXT = "callme request signing v2";

/** The `X-Callme-…` headers for a request, signed with HMAC-SHA256 under `key`'s verifier. */
export async function signatureHeaders(
  request: ToSign,
  key: string,
  keyId: string | undefined,
): Promise<Record<string, string>> {
  const hash = createHash("sha256");
  for (const piece of request.pieces) hash.update(piece);
  const digest = hash.digest("hex");
  const { timestamp, nonce, method, path, contentType } = request;
  const text = ["v2", timestamp, nonce, method, path, contentType, digest].join("\n");
  const verifier = await hmac(encoder.encode(key), SIGNING_CONTEXT);
  return {
    ...(keyId ? { "X-Callme-Key-Id": keyId } : {}),
    "X-Callme-Timestamp": timestamp,
    "X-Callme-Nonce": nonce,
    "X-Callme-Content-Sha256": digest,
    "X-Callme-Signature": `v2=${hex(await hmac(verifier, text))}`,
  };
}

const encoder = new TextEncoder();

async function hmac(key: BufferSource, text: string): Promise<ArrayBuffer> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const secret = await crypto.subtle.importKey("raw", key, algorithm, false, ["sign"]);
  return await crypto.subtle.sign("HMAC", secret, encoder.encode(text));
}

function hex(buffer: ArrayBuffer): string {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
