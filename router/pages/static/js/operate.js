// What an operator asks of a model: load, unload, restart. What happens then is the model's state,
// which the page follows anyway; a refusal is told beside the buttons. And its log, followed.

import { json, request } from "./api.js";
import { h, say, set } from "./dom.js";

const LOADED = new Set(["ready", "busy", "unhealthy"]);
const LOG_MS = 2000;
const MODELS = "/models/";

/**
 * The buttons for a model: {node, update(m)}, `m` being its part of /status. They are hidden where
 * the key does not allow them or the model runs on another machine. `more`: buttons beside them.
 */
export function operations(name, ...more) {
  const path = MODELS + encodeURIComponent(name);
  const told = h("p", { class: "small", role: "status" });
  const make = (label, verb) => h("button", { type: "button", class: "compact", onclick: () => ask(verb) }, label, h("span", { class: "sr-only" }, ` ${name}`));
  const load = make("Load", "load");
  const unload = make("Unload", "unload");
  const restart = make("Restart", "restart");
  const node = h("div", { class: "stack tight operate", hidden: true }, h("div", { class: "row" }, load, unload, restart, more), told);
  let model = {};
  let asked = null; // {verb, state}: shown until the state changes

  async function ask(verb) {
    tell("Asking …");
    try {
      await request(`${path}/${verb}`, { method: "POST" });
      asked = { verb, state: model.state };
      tell("");
      show();
    } catch (error) {
      tell(error.message, true);
    }
  }
  function tell(text, isError = false) {
    told.className = `small ${isError ? "error" : "muted"}`;
    say(told, text);
  }
  /** What was asked and has not begun: nobody should wonder whether the button works. */
  function show() {
    if (asked && asked.state !== model.state) {
      asked = null;
      tell("");
    }
    if (model.restarting) tell("It restarts when its runs have ended.");
    else if (asked?.verb === "unload" && model.running.length) tell("It is unloaded when its runs have ended.");
    else if (asked?.verb === "load" && model.wanted) tell("It is loaded as soon as there is memory for it.");
  }
  return {
    node,
    update(m) {
      model = m;
      node.hidden = m.queue === undefined || m.backend !== "local";
      if (node.hidden) return;
      const { state } = m;
      load.hidden = !["stopped", "failed", "asleep"].includes(state);
      say(load.firstChild, state === "asleep" ? "Wake" : "Load");
      unload.hidden = !(LOADED.has(state) || state === "asleep");
      restart.hidden = !(LOADED.has(state) || ["asleep", "failed"].includes(state));
      show();
    },
  };
}

/** The log of a model's process: {node, follow(), stop()}. It is asked for while somebody sees it. */
export function modelLog(name, signal) {
  const path = `${MODELS}${encodeURIComponent(name)}/logs`;
  const node = h("pre", { tabindex: "0", "aria-label": `What the process of ${name} printed` });
  let timer = 0;
  let shown = false;
  async function follow() {
    clearTimeout(timer);
    if (signal?.aborted) return;
    shown = true;
    if (!document.hidden) await read();
    if (shown) timer = setTimeout(follow, LOG_MS);
  }
  async function read() {
    try {
      const { lines } = await json(path, { signal });
      const atEnd = node.scrollTop + node.clientHeight >= node.scrollHeight - 4;
      say(node, lines.join("\n") || "Nothing was printed.");
      if (atEnd) node.scrollTop = node.scrollHeight;
    } catch (error) {
      if (!signal?.aborted) say(node, error.message);
    }
  }
  function stop() {
    shown = false;
    clearTimeout(timer);
  }
  return { node, follow, stop };
}

/** Show the log of a model's process above the page, and follow it until it is closed. */
export function openLog(name) {
  const log = modelLog(name);
  const title = h("h2", { id: "log-title" }, `Log of ${name}`);
  const close = h("button", { type: "button", class: "compact", onclick: () => node.close() }, "Close");
  const node = h("dialog", { class: "wide", "aria-labelledby": "log-title" }, h("div", { class: "stack" }, h("div", { class: "row spread" }, title, close), log.node));
  set(node, {
    onclose: () => {
      log.stop();
      node.remove();
    },
  });
  document.body.append(node);
  node.showModal();
  log.follow();
}
