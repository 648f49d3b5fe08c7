/**
 * W3C Trace Context: the app's span goes on to the GPU box as it came. This function reports no
 * span of its own, so it sends no id of its own either.
 */

// Version, trace, span, flags. A version after 00 may add fields at the end.
const PARENT =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$/;
const STATE = /^[ -~]{1,512}$/;

/** The headers that continue the trace of a request with `headers`; none when it has no trace. */
export function traceHeaders(headers: Headers): Record<string, string> {
  const parent = headers.get("traceparent") ?? "";
  if (!PARENT.test(parent)) return {};
  const state = headers.get("tracestate") ?? "";
  return { traceparent: parent, ...(STATE.test(state) ? { tracestate: state } : {}) };
}

/** The trace of a `traceparent` or `traceresponse`; undefined when it is not valid. */
export function traceId(value: string | null | undefined): string | undefined {
  return PARENT.exec(value ?? "")?.[1];
}
