/**
 * The one table of what this function itself can answer with, and how it looks on the wire.
 * The GPU box's own errors never pass through here: their status and bytes are relayed as they are.
 */

/** Machine-readable names; `message` beside them is for the person. README.md explains each. */
export type ErrorCode =
  | "empty_body"
  | "invalid_json"
  | "missing_input"
  | "invalid_input"
  | "unknown_endpoint"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "conflict"
  | "quota_exceeded"
  | "method_not_allowed"
  | "request_timeout"
  | "payload_too_large"
  | "rate_limited"
  | "client_closed_request"
  | "internal_error"
  | "bad_gateway"
  | "not_configured"
  | "service_unavailable"
  | "gateway_timeout";

const STATUS: Record<ErrorCode, number> = {
  empty_body: 400,
  invalid_json: 400,
  missing_input: 400,
  invalid_input: 400,
  unknown_endpoint: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  conflict: 409,
  payload_too_large: 413,
  quota_exceeded: 429,
  rate_limited: 429,
  client_closed_request: 499, // nginx's number; nobody is left to read it, the log is
  internal_error: 500,
  bad_gateway: 502,
  not_configured: 503,
  service_unavailable: 503,
  gateway_timeout: 504,
};

/**
 * A request that is answered with an error. `cause` goes to the log, never to the caller;
 * `retryAfter` to both, as the header's value.
 */
export class Refusal extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown> | undefined;
  readonly retryAfter: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      details?: Record<string, unknown>;
      cause?: unknown;
      retryAfter?: string | undefined;
    } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = "Refusal";
    this.code = code;
    this.details = options.details;
    this.retryAfter = options.retryAfter;
  }

  get status(): number {
    return STATUS[this.code];
  }
}

/** Renders `{"error":{"code","message","details?"}}`, the one error shape of the project. */
export function refusalResponse(refusal: Refusal): Response {
  const { code, message, details, retryAfter } = refusal;
  const body = { error: { code, message, ...(details ? { details } : {}) } };
  const headers = retryAfter === undefined ? {} : { "Retry-After": retryAfter };
  return Response.json(body, { status: refusal.status, headers });
}
