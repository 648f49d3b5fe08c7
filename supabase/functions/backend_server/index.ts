/** Entry point: real network, clock and environment. Everything else is in handler.ts. */

import { createHandler } from "./handler.ts";

const handler = createHandler({
  env: (name) => Deno.env.get(name),
  fetch: (input, init) => fetch(input, init),
  now: () => Date.now(),
  newId: () => crypto.randomUUID(),
  after: (ms) => AbortSignal.timeout(ms),
  log: (entry) => console.log(JSON.stringify(entry)),
});

// Supabase ignores the address; on one's own machine it is loopback, PORT=0 takes any free one.
Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.env.get("PORT") ?? 8000) }, handler);
