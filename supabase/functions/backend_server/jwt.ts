/** Access tokens of Supabase Auth (RFC 7519), checked against the project's public keys. */

/** A public key as a JWKS lists it. */
export type PublicKey = JsonWebKey & { kid?: string };

interface Algorithm {
  kty: string;
  params: RsaHashedImportParams & { namedCurve?: string };
}

// Supabase's asymmetric signing keys. HS256 is left out on purpose: its secret is not public, and
// a verifier that takes both can be talked into using a public key as the secret.
const ALGORITHMS: Record<string, Algorithm> = {
  ES256: { kty: "EC", params: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } },
  RS256: { kty: "RSA", params: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } },
};
const LEEWAY_S = 30;

interface Claims {
  exp?: unknown;
  nbf?: unknown;
  role?: unknown;
}

/**
 * Whether `token` was signed by one of `keys`, is valid at `nowS` (Unix seconds), and is a signed-in
 * user's: the role `authenticated`, which anonymous sign-ins have too and API keys do not.
 */
export async function isUserToken(
  token: string,
  keys: readonly PublicKey[],
  nowS: number,
): Promise<boolean> {
  const [head, payload, signature, ...rest] = token.split(".");
  if (!head || !payload || !signature || rest.length > 0) return false;
  try {
    const { alg, kid } = readPart(head) as { alg?: unknown; kid?: unknown };
    const algorithm = typeof alg === "string" && Object.hasOwn(ALGORITHMS, alg)
      ? ALGORITHMS[alg]!
      : null;
    const key = keys.find((key) => key.kid === kid && key.kty === algorithm?.kty);
    if (!algorithm || !key) return false;
    const signed = new TextEncoder().encode(`${head}.${payload}`);
    const imported = await crypto.subtle.importKey("jwk", bare(key), algorithm.params, false, [
      "verify",
    ]);
    return await crypto.subtle.verify(algorithm.params, imported, decode(signature), signed) &&
      isCurrent(readPart(payload) as Claims, nowS);
  } catch {
    return false; // not base64, not JSON, not a key: not a token
  }
}

function isCurrent({ exp, nbf, role }: Claims, nowS: number): boolean {
  return role === "authenticated" && typeof exp === "number" && nowS < exp + LEEWAY_S &&
    (nbf === undefined || (typeof nbf === "number" && nowS > nbf - LEEWAY_S));
}

/** The key without `alg`, `use` and `key_ops`, which some issuers fill in ways WebCrypto refuses. */
function bare({ kty, crv, x, y, n, e }: JsonWebKey): JsonWebKey {
  return kty === "EC" ? { kty, crv: crv!, x: x!, y: y! } : { kty: kty!, n: n!, e: e! };
}

function readPart(part: string): unknown {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(decode(part))) ?? {};
}

function decode(part: string): Uint8Array<ArrayBuffer> {
  const binary = atob(part.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}
