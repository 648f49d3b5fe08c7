// The predictions that the box keeps for this key, newest first.

import { json, ROOT } from "./api.js";
import { announce, confirmed, h, moment, say, seconds } from "./dom.js";
import { isDone, remove } from "./run.js";

const LOOKS = { succeeded: "good", failed: "broken", processing: "active", starting: "pending" };
const STATES = ["succeeded", "failed", "canceled", "processing", "starting"];

/** The view. */
export function history() {
  const ending = new AbortController();
  const list = h("ul", { class: "list history" });
  const empty = h("p", { class: "muted" }, "Loading …");
  const more = h("button", { type: "button", hidden: true, onclick: () => load(next) }, "Show older ones");
  const model = h("select", { "aria-label": "Model", onchange: show }, h("option", { value: "" }, "All models"));
  const state = h("select", { "aria-label": "State", onchange: show }, h("option", { value: "" }, "Any state"), STATES.map((s) => h("option", {}, s)));
  const problem = h("p", { class: "notice bad", role: "alert", hidden: true });
  const found = [];
  let next = null;

  function show() {
    const wanted = found.filter((p) => (!model.value || p.model === model.value) && (!state.value || p.status === state.value));
    list.replaceChildren(...wanted.map((p) => row(p, drop)));
    empty.hidden = wanted.length > 0;
    say(empty, found.length ? "None of these fit." : "There are no predictions yet. Those that are run on this page, or asynchronously, are kept for a day.");
  }
  async function drop(p) {
    try {
      await remove(p.id);
      found.splice(found.indexOf(p), 1);
      problem.hidden = true;
      show();
      announce("Deleted.");
      (list.querySelector("a") ?? model).focus();
    } catch (error) {
      problem.hidden = false;
      say(problem, error.message);
    }
  }
  async function load(path) {
    more.disabled = true;
    try {
      const page = await json(path, { signal: ending.signal });
      found.push(...page.results.map((p) => ({ ...p, model: p.model.slice(p.model.indexOf("/") + 1) })));
      // Only path and query: the box may have been asked by another name than the browser's.
      next = page.next && `/v1/predictions${new URL(page.next).search}`;
      const known = new Set([...model.options].map((o) => o.value));
      found.forEach((p) => known.has(p.model) || (known.add(p.model), model.append(h("option", { value: p.model }, p.model))));
      show();
    } catch (error) {
      if (ending.signal.aborted) return;
      empty.hidden = false;
      say(empty, error.message);
    }
    more.disabled = false;
    more.hidden = !next;
  }
  load("/v1/predictions");
  const node = [h("div", { class: "row spread" }, h("h1", {}, "History"), h("div", { class: "row filters" }, model, state)), problem, h("section", { class: "card" }, empty, list, more)];
  return { node, title: `History · ${location.host}`, end: () => ending.abort() };
}

function row(p, drop) {
  const inputs = Object.entries(p.input).map(([k, v]) => `${k}: ${typeof v === "string" ? v : JSON.stringify(v)}`).join(" · ");
  const ran = p.metrics?.predict_time;
  return h("li", {}, h("span", { class: `state ${LOOKS[p.status] ?? ""}` }, p.status), h("a", { href: new URL(`predictions/${encodeURIComponent(p.id)}`, ROOT).href }, h("strong", {}, p.model), h("span", { class: "sr-only" }, ` ${p.id}`)), h("span", { class: "small muted grow cut" }, inputs.slice(0, 160)), h("span", { class: "small muted num" }, `${moment(p.created_at)}${ran ? ` · ${seconds(ran)}` : ""}`), isDone(p) ? confirmed("Delete", `this run of ${p.model}`, () => drop(p)) : null);
}
