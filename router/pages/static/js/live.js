// What the box is doing, live: `/status`, and again whenever `/events` says that something changed.
// One stream for the tab; closed while the tab is hidden, because a browser allows six connections.
// A key that is not an admin's has neither: then `/ready` is asked every few seconds.

import { ApiError, json, key, onKey, request, unreachable } from "./api.js";

const POLL_MS = 4000;
const WATCHDOG_MS = 40000; // a comment comes every 15 s
const REFRESH_MS = 250; // changes that come together are one request
const SLOWEST_MS = 30000;

const watchers = new Set();
let latest = null;
let stopCurrent = null;
let running = false;
let restart = () => {};

/**
 * Call `watcher` with {link, status, event} now and at every change. `link`: "connecting", "live",
 * "polling", "lost" or "refused". `status`: as /status, or {models: {name: {state}}} for a key that
 * may not see more. Returns a function that ends it.
 */
export function watch(watcher) {
  watchers.add(watcher);
  if (latest) watcher(latest);
  if (!running) start();
  return () => watchers.delete(watcher);
}

function tell(change) {
  latest = { link: "connecting", status: null, error: null, ...latest, event: null, ...change };
  watchers.forEach((watcher) => watcher(latest));
}

function start() {
  running = true;
  restart = () => {
    stopCurrent?.();
    stopCurrent = document.hidden ? null : connect();
  };
  document.addEventListener("visibilitychange", restart);
  addEventListener("pageshow", (event) => event.persisted && restart());
  onKey(restart);
  restart();
}

/** Follow the box until stopped, connecting again with growing waits. */
function connect() {
  const abort = new AbortController();
  let wait = 500;
  let refreshing = 0;

  async function refresh() {
    refreshing = 0;
    const status = await json("/status", { signal: abort.signal });
    tell({ status });
    // What takes time, such as a start, shows as it goes on.
    const moving = Object.values(status.models).some((m) => ["starting", "waking", "busy", "stopping"].includes(m.state));
    clearTimeout(soon.timer);
    soon.timer = setTimeout(() => soon(), moving ? 1500 : 10000);
  }
  function soon() {
    refreshing ||= setTimeout(() => refresh().catch(failed), REFRESH_MS);
  }
  /** A network that is gone ends no stream: it is only silent. */
  function failed(error) {
    if (error.status === 0 && !abort.signal.aborted) restart();
  }

  async function run() {
    while (!abort.signal.aborted) {
      try {
        await refresh();
        await readEvents(abort.signal, () => tell({ link: "live" }), (event) => {
          wait = 500;
          tell({ event });
          soon();
        });
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error instanceof ApiError && error.status === 403) {
          if (error.code === "forbidden" && (await poll(abort.signal))) continue;
          tell({ link: "refused", error });
          return;
        }
        if (error instanceof ApiError && error.status === 401) {
          tell({ link: "refused", error });
          return;
        }
        tell({ link: "lost", error: error instanceof ApiError ? error : unreachable(error) });
      }
      await pause(wait * (0.75 + Math.random() / 2), abort.signal);
      wait = Math.min(wait * 2, SLOWEST_MS);
    }
  }
  run();
  return () => {
    abort.abort();
    clearTimeout(refreshing);
    clearTimeout(soon.timer);
  };
}

/** For a key without admin rights: states only. Returns true when the connection was lost. */
async function poll(signal) {
  if (!key()) return false;
  for (;;) {
    try {
      const ready = await json("/ready", { signal }).catch((error) => {
        if (error.status === 503) return null;
        throw error;
      });
      if (ready) {
        const models = Object.fromEntries(Object.entries(ready.models).map(([name, state]) => [name, { state }]));
        tell({ link: "polling", status: { models } });
      }
    } catch (error) {
      if (signal.aborted) return false;
      tell({ link: error.status === 0 ? "lost" : "refused", error });
      return error.status === 0;
    }
    await pause(POLL_MS, signal);
    if (signal.aborted) return false;
  }
}

async function readEvents(signal, onOpen, onEvent) {
  const response = await request("/events", { signal, headers: { Accept: "text/event-stream" } });
  onOpen();
  for await (const event of events(response, signal)) onEvent(event);
}

/** Yield {kind, data} of a stream of Server-Sent Events; ends when it is silent for too long. */
export async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      let timer;
      const silence = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error("the stream is silent")), WATCHDOG_MS);
      });
      const { value, done } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done || signal.aborted) return;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n");
        const data = lines.filter((l) => l.startsWith("data: ")).map((l) => l.slice(6));
        const kind = lines.find((l) => l.startsWith("event: "))?.slice(7);
        if (kind) yield { kind, data: JSON.parse(data.join("\n")) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Resolve after `ms`, or at once when aborted. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
