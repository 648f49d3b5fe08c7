/**
 * multipart/form-data (RFC 7578), written out rather than left to `FormData`.
 *
 * `FormData` turns every line break of a text value into CRLF, so a prompt would not arrive as it
 * was typed; and it copies the file more often than the worker's memory likes. The bytes must be
 * in hand anyway: the signature covers them.
 */

import { concat } from "./body.ts";
import type { DataFile } from "./data_uri.ts";

/** One part: text as it is, or a file under `filename`. */
export type Part =
  | { name: string; text: string }
  | { name: string; filename: string; file: DataFile };

export interface Encoded {
  contentType: string;
  body: Uint8Array<ArrayBuffer>;
}

/** Encodes the parts in order. `boundary` must occur in none of them: pass something random. */
export function encodeMultipart(parts: readonly Part[], boundary: string): Encoded {
  const encoder = new TextEncoder();
  const chunks: Uint8Array[] = [];
  for (const part of parts) {
    chunks.push(encoder.encode(`--${boundary}\r\n${partHeader(part)}\r\n\r\n`));
    chunks.push("file" in part ? part.file.bytes : encoder.encode(part.text));
    chunks.push(encoder.encode("\r\n"));
  }
  chunks.push(encoder.encode(`--${boundary}--\r\n`));
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  return { contentType: `multipart/form-data; boundary=${boundary}`, body: concat(chunks, size) };
}

function partHeader(part: Part): string {
  const disposition = `Content-Disposition: form-data; name="${quote(part.name)}"`;
  if (!("file" in part)) return disposition;
  return `${disposition}; filename="${quote(part.filename)}"\r\nContent-Type: ${part.file.type}`;
}

/** Escapes as the HTML standard does for form-data names. */
function quote(value: string): string {
  return value.replaceAll("\r", "%0D").replaceAll("\n", "%0A").replaceAll('"', "%22");
}
