/**
 * Proof to the GPU box that a request is ours, without sending the key.
 *
 * A quick tunnel's host name can be handed to somebody else once the tunnel is gone; a key sent as
 * a header would then be theirs. The box recomputes the signature, refuses old timestamps and
 * nonces it has seen. tests/edge/signature_vectors.json holds examples both sides are tested with.
 */

export interface ToSign {
  method: string;
  /** Path and query exactly as they go out. */
  path: string;
  /** The content-type header exactly as it goes out; empty when there is none. */
  contentType: string;
  body: Uint8Array<ArrayBuffer>;
  /** Unix time in seconds, decimal. */
  timestamp: string;
  /** Never used twice. */
  nonce: string;
}

/** The `X-Callme-…` headers for a request, signed with HMAC-SHA256 under `key` (as UTF-8). */
export async function signatureHeaders(
  request: ToSign,
  key: string,
  keyId: string | undefined,
): Promise<Record<string, string>> {
  const digest = hex(await crypto.subtle.digest("SHA-256", request.body));
  const { timestamp, nonce, method, path, contentType } = request;
  const text = ["v1", timestamp, nonce, method, path, contentType, digest].join("\n");
  return {
    ...(keyId ? { "X-Callme-Key-Id": keyId } : {}),
    "X-Callme-Timestamp": timestamp,
    "X-Callme-Nonce": nonce,
    "X-Callme-Signature": `v1=${await hmac(key, text)}`,
  };
}

async function hmac(key: string, text: string): Promise<string> {
  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const secret = await crypto.subtle.importKey("raw", encoder.encode(key), algorithm, false, [
    "sign",
  ]);
  return hex(await crypto.subtle.sign("HMAC", secret, encoder.encode(text)));
}

function hex(buffer: ArrayBuffer): string {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
