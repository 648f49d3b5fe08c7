/** Who is let in, and that what lets them in stays here. */

import assert from "node:assert/strict";

import type { PublicKey } from "./jwt.ts";
import { bench, messageOf, WAV } from "./testing.ts";

const CALL = { endpoint: "fluency", audio: `data:audio/wav;base64,${WAV}` };
const NOW_S = 1_790_000_000; // the bench's clock
const USER = { sub: "u", role: "authenticated", exp: NOW_S + 3600 };

const base64url = (bytes: Uint8Array) =>
  btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const part = (value: unknown) => base64url(new TextEncoder().encode(JSON.stringify(value)));

interface Signer {
  token(claims: unknown, head?: Record<string, unknown>): Promise<string>;
  jwk: PublicKey;
}

async function makeSigner(alg: "ES256" | "RS256", kid: string): Promise<Signer> {
  const params = alg === "ES256" ? { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } : {
    name: "RSASSA-PKCS1-v1_5",
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
    hash: "SHA-256",
  };
  const pair = await crypto.subtle.generateKey(params, true, ["sign", "verify"]) as CryptoKeyPair;
  const exported = await crypto.subtle.exportKey("jwk", pair.publicKey);
  return {
    jwk: { ...exported, kid, alg, use: "sig", key_ops: ["verify"] },
    async token(claims, head = {}) {
      const text = `${part({ alg, kid, typ: "JWT", ...head })}.${part(claims)}`;
      const bytes = new TextEncoder().encode(text);
      return `${text}.${
        base64url(new Uint8Array(await crypto.subtle.sign(params, pair.privateKey, bytes)))
      }`;
    },
  };
}

const [ours, older, foreign] = await Promise.all([
  makeSigner("ES256", "k1"),
  makeSigner("RS256", "k2"),
  makeSigner("ES256", "k1"),
]);

function userBench() {
  const made = bench();
  made.env.set("BACKEND_SERVER_AUTH", "user");
  made.env.set("SUPABASE_JWKS", JSON.stringify({ keys: [older.jwk, ours.jwk] }));
  return made;
}

Deno.test("user: tokens of either kind of signing key are let in", async () => {
  const { call, env, sent } = userBench();
  for (const signer of [ours, older]) {
    const token = await signer.token(USER);
    assert.equal((await call(CALL, { Authorization: `Bearer ${token}` })).status, 200);
  }
  env.set("SUPABASE_JWKS", JSON.stringify([ours.jwk]));
  const token = await ours.token(USER);
  assert.equal((await call(CALL, { authorization: `bearer ${token}` })).status, 200);
  assert.equal(sent.length, 3);
});

async function hmacWithPublicKey(): Promise<string> {
  const text = `${part({ alg: "HS256", kid: "k1" })}.${part(USER)}`;
  const secret = new TextEncoder().encode(JSON.stringify(ours.jwk));
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", secret, algorithm, false, ["sign"]);
  const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text));
  return `${text}.${base64url(new Uint8Array(mac))}`;
}

const good = await ours.token(USER);
const [head, , signature] = good.split(".");
const REFUSED: Record<string, string> = {
  "no header": "",
  "no token": "Bearer ",
  "a publishable key": "Bearer sb_publishable_abc",
  "no bearer": good,
  "a token cut short": `Bearer ${good.slice(0, -4)}`,
  "a fourth part": `Bearer ${good}.x`,
  "an altered payload": `Bearer ${head}.${part({ ...USER, sub: "admin" })}.${signature}`,
  "another project's key": `Bearer ${await foreign.token(USER)}`,
  "an unknown key id": `Bearer ${await ours.token(USER, { kid: "k9" })}`,
  "no key id": `Bearer ${await ours.token(USER, { kid: undefined })}`,
  "an algorithm of another key": `Bearer ${await ours.token(USER, { alg: "RS256" })}`,
  "no algorithm": `Bearer ${part({ alg: "none", kid: "k1" })}.${part(USER)}.AA`,
  "a public key used as a secret": `Bearer ${await hmacWithPublicKey()}`,
  "an inherited algorithm": `Bearer ${part({ alg: "toString", kid: "k1" })}.${part(USER)}.AA`,
  "an expired token": `Bearer ${await ours.token({ ...USER, exp: NOW_S - 60 })}`,
  "a token without expiry": `Bearer ${await ours.token({ ...USER, exp: undefined })}`,
  "an expiry that is text": `Bearer ${await ours.token({ ...USER, exp: "9999999999" })}`,
  "a token for later": `Bearer ${await ours.token({ ...USER, nbf: NOW_S + 600 })}`,
  "the anon role": `Bearer ${await ours.token({ ...USER, role: "anon" })}`,
  "claims that are null": `Bearer ${await ours.token(null)}`,
};
for (const [what, authorization] of Object.entries(REFUSED)) {
  Deno.test(`user: ${what} is 401, with CORS, and nothing is sent`, async () => {
    const { call, sent } = userBench();
    const headers = authorization ? { Authorization: authorization } : {};
    const response = await call(CALL, headers);
    assert.equal(response.status, 401);
    assert.equal(response.headers.get("access-control-allow-origin"), "*");
    assert.match(await messageOf(response), /'Authorization' must be a signed-in user's/);
    assert.equal(sent.length, 0);
  });
}

Deno.test("user: a preflight, which can carry no token, still passes", async () => {
  assert.equal((await userBench().ask({ method: "OPTIONS" })).status, 204);
});

Deno.test("user: without readable keys nobody is let in", async () => {
  for (const jwks of ["", "{", "null", "{}", '"x"']) {
    const { call, env } = userBench();
    env.set("SUPABASE_JWKS", jwks);
    assert.equal((await call(CALL, { Authorization: `Bearer ${good}` })).status, 503);
  }
});

Deno.test("the caller's own credentials and cookies never reach the box", async () => {
  const { call, env, sent } = bench();
  env.set("GPU_BACKEND_KEY", "k");
  await call(CALL, { Authorization: `Bearer ${good}`, apikey: "sb_publishable_a", Cookie: "a=b" });
  for (const name of ["authorization", "apikey", "cookie"]) {
    assert.equal(sent[0]!.headers.has(name), false, name);
  }
});
