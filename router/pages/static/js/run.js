// One run: sent as a durable prediction, then followed until its end, also after a reload.

import { ApiError, json, request, url } from "./api.js";
import { pause } from "./live.js";
import { forget } from "./stored.js";

const DONE = new Set(["succeeded", "failed", "canceled", "aborted"]);

/** Send the form; returns the prediction, which the box keeps. `values`: {input: [texts, Files]}. */
export async function send(model, values) {
  const body = new FormData();
  for (const [name, parts] of Object.entries(values)) {
    for (const part of parts) body.append(name, part);
  }
  // A form without any part has no boundary that every server reads.
  if (![...body.keys()].length) {
    return await json(`/models/${encodeURIComponent(model)}/predictions`, { method: "POST", headers: { "Content-Type": "application/json", Prefer: "respond-async" }, body: '{"input":{}}' });
  }
  return await json(`/${encodeURIComponent(model)}`, { method: "POST", headers: { Prefer: "respond-async" }, body });
}

/** A prediction now: {…, model, queue, failure: {code, message, problems, logTail}}. */
export async function state(id, signal) {
  const path = encodeURIComponent(id);
  // Its files as URLs: a large one is fetched by the browser when it is shown, and never as text.
  const p = await json(`/v1/predictions/${path}`, { signal });
  p.model = p.model.slice(p.model.indexOf("/") + 1);
  p.files = `/v1/outputs/${p.id}/`;
  if (p.status === "starting" || p.status === "failed") {
    const own = await json(`/predictions/${path}`, { signal });
    p.queue = own.queue;
    if (own.error) {
      const { code, message, details } = own.error;
      p.failure = { code, message, problems: details?.problems ?? [], logTail: details?.log_tail ?? [] };
    }
  }
  return p;
}

/** Yield the prediction's states until it has ended. `lost(error)`: the box was not reached. */
export async function* follow(id, signal, lost) {
  const began = Date.now();
  for (let failures = 0; !signal.aborted; ) {
    let p = null;
    try {
      p = await state(id, signal);
      failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError) || (error.status && error.status < 500 && error.status !== 429)) throw error;
      lost(error);
      failures += 1;
    }
    if (p) yield p;
    if (p && DONE.has(p.status)) return;
    const age = Date.now() - began;
    const rest = age < 3000 ? 250 : age < 60000 ? 800 : 2000;
    await pause(document.hidden ? 4000 : Math.min(rest * 2 ** failures, 15000), signal);
  }
}

/** Ask the box to cancel it. */
export async function cancel(id) {
  await request(`/predictions/${encodeURIComponent(id)}/cancel`, { method: "POST" });
}

/** Ask the box to forget it, with its files. */
export async function remove(id) {
  await request(`/predictions/${encodeURIComponent(id)}`, { method: "DELETE" });
  await forget(id);
}

/** Whether it has ended. */
export const isDone = (p) => DONE.has(p.status);

/** A file of an output as a URL of this box, whatever name the box was asked by; else null. The box
 * sends it itself, also when it is in a result store: this page may load nothing from there. */
export function fileUrl(value) {
  if (typeof value !== "string") return null;
  if (value.startsWith("data:")) return value;
  const at = value.indexOf("/v1/outputs/");
  return at >= 0 && /^https?:\/\//.test(value) ? `${url(value.slice(at)).href}&through=router` : null;
}

const PERCENT = /(\d{1,3})(?:\.\d+)? ?%/g;
const PREVIEW = /^preview: (data:image\/[\w+.-]+;base64,[\w+/=]+)\s*$/gm;

/** What the logs tell about progress: {share (0 to 1 or null), preview (a data: URI or null), text}. */
export function progress(logs) {
  const preview = [...logs.matchAll(PREVIEW)].at(-1)?.[1] ?? null;
  const text = logs.replaceAll(PREVIEW, "").replaceAll(/\n{2,}/g, "\n");
  const percent = [...text.slice(-3000).matchAll(PERCENT)].at(-1)?.[1];
  return { share: percent === undefined ? null : Math.min(Number(percent), 100) / 100, preview, text };
}
