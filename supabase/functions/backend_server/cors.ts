/** Cross-origin headers. They go on every answer: a browser hides the body of one without them. */

import { type Env, readList } from "./settings.ts";

const EXPOSED = "Retry-After, Traceresponse, X-Prediction-Id, X-Request-Id";
// What supabase-js sends. A wildcard would not cover Authorization.
const ALLOWED_HEADERS =
  "authorization, x-client-info, apikey, content-type, traceparent, tracestate, x-request-id";
const HEADER_LIST = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+(\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*$/;
const PREFLIGHT_MAX_AGE_S = 86_400;

/**
 * Headers for an answer to `request`. `CORS_ALLOW_ORIGINS` is `*` (the default) or a
 * comma-separated list of origins such as `https://app.example.com`.
 */
export function corsHeaders(request: Request, env: Env): Record<string, string> {
  const allowed = readList(env("CORS_ALLOW_ORIGINS"));
  const exposed = { "Access-Control-Expose-Headers": EXPOSED };
  if (allowed.length === 0 || allowed.includes("*")) {
    return { "Access-Control-Allow-Origin": "*", ...exposed };
  }
  const origin = request.headers.get("origin");
  // Vary even on a refusal: a cache must not serve one origin's answer to another.
  if (origin === null || !allowed.includes(origin)) return { Vary: "Origin" };
  return { "Access-Control-Allow-Origin": origin, Vary: "Origin", ...exposed };
}

/** The answer to OPTIONS. Grants the headers asked for, so that a new supabase-js keeps working. */
export function preflight(request: Request): Response {
  const asked = request.headers.get("access-control-request-headers") ?? "";
  return new Response(null, {
    status: 204,
    headers: {
      Allow: "POST, OPTIONS",
      "Access-Control-Allow-Methods": "POST, OPTIONS",
      "Access-Control-Allow-Headers": HEADER_LIST.test(asked) ? asked : ALLOWED_HEADERS,
      "Access-Control-Max-Age": String(PREFLIGHT_MAX_AGE_S),
    },
  });
}
