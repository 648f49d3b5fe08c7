/** Data URIs (RFC 2397), as browsers write them and as people paste them. */

import { Refusal } from "./errors.ts";
import { LongString } from "./long_strings.ts";
import { unescapePercent } from "./unescape.ts";

/** A decoded file: its MIME type with parameters, as the data URI named it. */
export interface DataFile {
  type: string;
  bytes: Uint8Array<ArrayBuffer>;
}

// The media type ends at `;base64,`, not at the first comma: Chrome's MediaRecorder writes
// `data:video/webm;codecs=vp8,opus;base64,…` with a bare comma among the parameters.
const BASE64_MARK = /; *base64 *,/i;
const HEADER_CHARS = 1024;
const PERCENT = 0x25;
const MEDIA_TYPE =
  /^[A-Za-z0-9!#$&^_.+-]{1,127}\/[A-Za-z0-9!#$&^_.+-]{1,127}(?:\s*;[\x20-\x7e]*)?$/;
const OCTETS = "application/octet-stream";

const EXTENSIONS: Record<string, string> = {
  "application/octet-stream": "bin",
  "audio/mp4": "m4a",
  "audio/mpeg": "mp3",
  "audio/vnd.wave": "wav",
  "audio/wave": "wav",
  "audio/x-m4a": "m4a",
  "image/jpeg": "jpg",
  "image/svg+xml": "svg",
  "image/vnd.microsoft.icon": "ico",
  "text/plain": "txt",
  "video/quicktime": "mov",
  "video/x-matroska": "mkv",
};

/** Whether a string is meant as a file: it names a MIME type or says base64. */
export function looksLikeDataUri(value: string | LongString): boolean {
  const head = headOf(
    value instanceof LongString ? value.bytes() : encode(value.slice(0, HEADER_CHARS)),
  );
  return /^data:[^,;\s]+\/[^,;\s]+[,;]/i.test(head) || /^data:; *base64 *,/i.test(head);
}

/**
 * Decodes the data URI of input `name`.
 *
 * Accepts any MIME type with parameters, standard and url-safe base64, padded or not, with line
 * breaks or percent-encoding, and percent-encoded text without base64. Without a MIME type the
 * file is `application/octet-stream`. Throws `invalid_input` for everything else.
 *
 * A `LongString` is decoded where it lies: its bytes are not readable as text afterwards.
 */
export function parseDataUri(name: string, uri: string | LongString): DataFile {
  const whole = uri instanceof LongString ? uri.bytes() : encode(uri);
  const { type, base64, start } = readHead(name, headOf(whole));
  const payload = whole.subarray(start);
  const unescaped = payload.includes(PERCENT) ? unescapePercent(payload) : payload;
  if (unescaped === null) throw unreadable(name, "must have two hexadecimal digits after each %");
  const bytes = base64 ? decodeBase64(name, unescaped) : unescaped;
  if (bytes.length === 0) throw unreadable(name, "must not be empty");
  return { type, bytes };
}

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;
}

/** The beginning as text. All that comes before the payload is ASCII, or it is refused. */
function headOf(uri: Uint8Array): string {
  return new TextDecoder("latin1").decode(uri.subarray(0, HEADER_CHARS));
}

function readHead(name: string, head: string): { type: string; base64: boolean; start: number } {
  const comma = head.indexOf(",");
  if (!/^data:/i.test(head) || comma < 0) {
    throw unreadable(name, "must be a data URI such as data:audio/wav;base64,UklGR…");
  }
  const mark = BASE64_MARK.exec(head);
  const marked = mark ? head.slice("data:".length, mark.index).trim() : "";
  if (mark && (marked === "" || MEDIA_TYPE.test(marked))) {
    return { type: marked || OCTETS, base64: true, start: mark.index + mark[0].length };
  }
  const type = head.slice("data:".length, comma).trim() || OCTETS;
  if (!MEDIA_TYPE.test(type)) throw unreadable(name, "must name a MIME type such as audio/wav");
  return { type, base64: false, start: comma + 1 };
}

/** A file name extension for a MIME type: `audio/webm;codecs=opus` → `webm`; unknown → `bin`. */
export function extensionOf(type: string): string {
  const essence = type.split(";", 1)[0]!.trim().toLowerCase();
  if (Object.hasOwn(EXTENSIONS, essence)) return EXTENSIONS[essence]!;
  const subtype = (essence.split("/")[1] ?? "").replace(/^x-/, "");
  return /^[a-z0-9]{1,8}$/.test(subtype) ? subtype : "bin";
}

const INVALID = 64;
const SKIP = 65;
const PAD = 66;
const SEXTETS = buildSextets();

function buildSextets(): Uint8Array {
  const table = new Uint8Array(256).fill(INVALID);
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  for (let i = 0; i < alphabet.length; i++) table[alphabet.charCodeAt(i)] = i;
  for (const [char, value] of [["+", 62], ["-", 62], ["/", 63], ["_", 63]] as const) {
    table[char.charCodeAt(0)] = value;
  }
  for (const char of "\t\n\f\r ") table[char.charCodeAt(0)] = SKIP;
  table["=".charCodeAt(0)] = PAD;
  return table;
}

/**
 * Base64 in either alphabet, decoded in place: what is written never overtakes what is read.
 * By hand because `Uint8Array.fromBase64` is missing from Deno 2.1, and `atob` would hold the whole
 * file twice more, as two strings.
 */
function decodeBase64(name: string, bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  let size = 0, bits = 0, sextets = 0, padding = 0;
  for (let i = 0; i < bytes.length; i++) {
    if (sextets % 4 === 0 && padding === 0) { // fours of plain letters, as nearly all are
      for (; i + 4 <= bytes.length; i += 4, size += 3, sextets += 4) {
        const a = SEXTETS[bytes[i]!]!, b = SEXTETS[bytes[i + 1]!]!;
        const c = SEXTETS[bytes[i + 2]!]!, d = SEXTETS[bytes[i + 3]!]!;
        if ((a | b | c | d) >= INVALID) break;
        bytes[size] = (a << 2) | (b >> 4);
        bytes[size + 1] = (b << 4) | (c >> 2);
        bytes[size + 2] = (c << 6) | d;
      }
      if (i === bytes.length) break;
    }
    const value = SEXTETS[bytes[i]!]!;
    if (value === SKIP) continue;
    if (value === PAD) {
      padding++;
      continue;
    }
    if (value === INVALID || padding > 0) {
      throw unreadable(name, `must be base64, got an unexpected character at position ${i}`);
    }
    bits = (bits << 6) | value;
    if (++sextets % 4 === 0) {
      bytes[size++] = bits >> 16;
      bytes[size++] = (bits >> 8) & 0xff;
      bytes[size++] = bits & 0xff;
      bits = 0;
    }
  }
  const rest = sextets % 4;
  if (rest === 1 || (padding > 0 && (rest + padding) % 4 !== 0) || padding > 2) {
    throw unreadable(name, "must be complete base64, got a cut-off or wrongly padded text");
  }
  if (rest === 2) bytes[size++] = bits >> 4;
  if (rest === 3) {
    bytes[size++] = bits >> 10;
    bytes[size++] = (bits >> 2) & 0xff;
  }
  return bytes.subarray(0, size);
}

function unreadable(name: string, what: string): Refusal {
  return new Refusal("invalid_input", `Cannot read '${name}': it ${what}`);
}
