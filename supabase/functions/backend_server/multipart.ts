/**
 * multipart/form-data (RFC 7578), written out rather than left to `FormData`.
 *
 * `FormData` turns every line break of a text value into CRLF, so a prompt would not arrive as it
 * was typed; and it copies the file more often than the worker's memory likes. The bytes must be
 * in hand anyway: the signature covers them.
 */

import type { DataFile } from "./data_uri.ts";

/** One part: text (a string, or its UTF-8), or a file under `filename`. */
export type Part =
  | { name: string; text: string | Uint8Array<ArrayBuffer> }
  | { name: string; filename: string; file: DataFile };

export interface Encoded {
  contentType: string;
  /** One after the other they are the body. A file is not copied into it. */
  pieces: Uint8Array<ArrayBuffer>[];
}

/** Encodes the parts in order. `boundary` must occur in none of them: pass something random. */
export function encodeMultipart(parts: readonly Part[], boundary: string): Encoded {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for (const part of parts) {
    pieces.push(encode(`--${boundary}\r\n${partHeader(part)}\r\n\r\n`));
    const content = "file" in part ? part.file.bytes : part.text;
    pieces.push(typeof content === "string" ? encode(content) : content, encode("\r\n"));
  }
  pieces.push(encode(`--${boundary}--\r\n`));
  return { contentType: `multipart/form-data; boundary=${boundary}`, pieces };
}

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;
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
