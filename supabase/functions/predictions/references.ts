/**
 * References to files within JSON that stays text. The text is Postgres' own of a `jsonb`: it is
 * valid, and only `"`, `\\` and control characters are escaped.
 */

export const SCHEME = "storage://";

/** A string of the JSON, quotes included, that begins with SCHEME; no name of a member. */
export interface Found {
  start: number;
  end: number;
  reference: string;
}

/** All of them, in the order in which they stand. */
export function findReferences(json: string): Found[] {
  const found: Found[] = [];
  let end = 0;
  for (;;) {
    const start = json.indexOf(`"${SCHEME}`, end);
    if (start < 0) return found;
    if (isEscaped(json, start)) {
      end = start + 1; // a quote within a string
      continue;
    }
    end = json.indexOf('"', start + 1);
    while (isEscaped(json, end)) end = json.indexOf('"', end + 1);
    end++;
    if (/^\s*:/.test(json.slice(end, end + 2))) continue; // the name of a member
    found.push({ start, end, reference: JSON.parse(json.slice(start, end)) });
  }
}

/** The same JSON with the URL of each reference in its place. */
export function replaceReferences(
  json: string,
  found: readonly Found[],
  urls: ReadonlyMap<string, string>,
): string {
  const pieces: string[] = [];
  let from = 0;
  for (const { start, end, reference } of found) {
    pieces.push(json.slice(from, start), JSON.stringify(urls.get(reference)));
    from = end;
  }
  return pieces.join("") + json.slice(from);
}

/** Whether an odd number of backslashes stands before. */
function isEscaped(json: string, at: number): boolean {
  let before = at;
  while (json[before - 1] === "\\") before--;
  return (at - before) % 2 === 1;
}
