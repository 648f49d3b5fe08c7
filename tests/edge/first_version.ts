/**
 * The function's first version, rebuilt from the description of how it behaved, with network and
 * clock handed in like the real one's. test_first_version.py runs the tests of the defects against
 * it: a test that passes here proves nothing.
 */

interface Deps {
  fetch: typeof fetch;
}

const BACKEND = "https://words-words-words.trycloudflare.com";
const CORS = { "Access-Control-Allow-Origin": "*", "Content-Type": "application/json" };

function refuse(message: string): Response {
  return new Response(JSON.stringify({ error: message }), { status: 400 });
}

function toBlob(dataUri: string, type: string): Blob {
  const binary = atob(dataUri.split(",")[1]!);
  return new Blob([Uint8Array.from(binary, (char) => char.charCodeAt(0))], { type });
}

async function handle(request: Request, deps: Deps): Promise<Response> {
  const raw = await request.text();
  if (!raw) return refuse("empty body");
  let body;
  try {
    body = JSON.parse(raw);
  } catch (error) {
    return refuse(`JSON parse fail: ${(error as Error).message}`);
  }
  const form = new FormData();
  if (body.endpoint === "fluency") {
    if (!body.audio) return refuse("missing audio");
    form.append("audio", toBlob(body.audio, "audio/wav"), "audio.wav");
  } else if (body.endpoint === "sketch2real" || body.endpoint === "grounding") {
    if (!body.image) return refuse("missing image");
    form.append("image", toBlob(body.image, "image/png"), "image.png");
    if (body.text_queries) form.append("text_queries", body.text_queries);
    if (body.box_threshold !== undefined) form.append("box_threshold", String(body.box_threshold));
  } else {
    return refuse("unknown endpoint");
  }
  const answer = await deps.fetch(`${BACKEND}/${body.endpoint}`, { method: "POST", body: form });
  if (!answer.ok) {
    return new Response(JSON.stringify({ error: "backend error" }), { status: answer.status });
  }
  return new Response(JSON.stringify(await answer.json()), { headers: CORS });
}

/** Deno.serve answers what a handler throws with a bare 500. */
export function createHandler(deps: Deps): (request: Request) => Promise<Response> {
  return (request) =>
    handle(request, deps).catch(() => new Response("Internal Server Error", { status: 500 }));
}
