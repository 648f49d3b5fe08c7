// `/`: the box at a glance. Made once, then told of every change.

import { json, ROOT } from "./api.js";
import { bytes, described, h, keyed, say, seconds, words } from "./dom.js";
import { watch } from "./live.js";
import { openLog, operations } from "./operate.js";

const COLOURS = 6;
/** How each state looks; the word itself is shown too. */
const LOOKS = {
  ready: "good",
  busy: "active",
  starting: "pending",
  waking: "pending",
  suspending: "pending",
  stopping: "pending",
  unhealthy: "broken",
  failed: "broken",
};
const RECENT = 12;

/** A badge for a state of a model or a prediction. */
export function badge() {
  return h("span", { class: "state" });
}

/** Show a model's state in its badge. */
export function setBadge(node, state) {
  say(node, state);
  node.className = `state ${LOOKS[state] ?? ""}`;
}

/** The view. */
export function overview() {
  const link = h("span", { class: "link-state", role: "status" });
  const cards = h("ul", { class: "cards" });
  const problem = h("div", { class: "notice", hidden: true });
  const memory = memoryCard();
  const queue = queueCard();
  const activity = activityCard();
  const leftOut = leftOutCard();
  const node = [
    h("div", { class: "row spread" }, h("h1", {}, "Models"), link),
    problem,
    memory.node,
    cards,
    h("div", { class: "two" }, queue.node, activity.node, leftOut.node),
  ];

  const end = watch(({ link: state, status, error, event }) => {
    const told = { connecting: "connecting …", live: "live", polling: "asked every 4 s", lost: "connection lost, trying again …", refused: "not connected" };
    say(link, told[state]);
    showProblem(problem, state, status, error);
    if (event?.kind === "prediction") activity.add(event.data);
    if (!status) return;
    const models = Object.entries(status.models).map(([name, m], i) => ({ name, colour: `c${i % COLOURS}`, ...m }));
    if (models.length && !cards.firstChild) performance.mark("usable"); // read by make screenshots
    keyed(cards, models, (m) => m.name, makeCard, (card, m) => card.update(m));
    memory.update(status.memory, models);
    queue.update(models, Boolean(status.memory));
    if (status.memory && activity.node.hidden) activity.begin();
    leftOut.update(status.left_out ?? {}, models);
  });
  return { node, title: `Models · ${location.host}`, end };
}

function showProblem(node, state, status, error) {
  const lines = [];
  node.className = "notice";
  if (state === "lost" && error) {
    node.className = "notice warn";
    lines.push(error.message, status ? "What you see is the last known state." : "");
  } else if (state === "refused" && error) {
    node.className = "notice bad";
    lines.push(error.message);
    if (error.status === 401) lines.push("Enter a key at the top of this page.");
  } else if (state === "polling") {
    lines.push("This key may run models. Memory, queues and logs need an admin key.");
  } else if (status && !Object.keys(status.models).length) {
    lines.push("There are no models yet. The command `callme new NAME` makes one. Or put a folder with `cog.yaml` and `run.py` into the box's folder of packages. Then restart the box.");
  }
  const text = lines.filter(Boolean);
  const shown = text.join("\n");
  if (node.dataset.shown !== shown) {
    node.replaceChildren(...text.map((line) => h("p", {}, described(line))));
    node.dataset.shown = shown;
  }
  node.hidden = !text.length;
}

function makeCard(first) {
  const state = badge();
  const about = h("p", { class: "small muted" });
  const why = h("p", { class: "small error" });
  const progress = h("div", { class: "bar pending", role: "progressbar", "aria-label": `${first.name} is starting`, "aria-valuemin": "0", "aria-valuemax": "100" }, h("i"));
  const progressText = h("p", { class: "small muted num" });
  const facts = h("dl", { class: "facts" });
  const [package_] = first.name.split("@");
  const href = new URL(`models/${encodeURIComponent(package_)}`, ROOT).href;
  const log = h("button", { type: "button", class: "compact quiet", onclick: () => openLog(first.name) }, "Log", h("span", { class: "sr-only" }, ` of ${first.name}`));
  const operate = operations(first.name, log);
  const card = h(
    "li",
    { class: "card model-card" },
    h("div", { class: "row spread" }, h("h2", {}, h("a", { href }, first.name)), state),
    about,
    h("div", { class: "stack tight", hidden: true }, progress, progressText),
    why,
    facts,
    operate.node,
  );
  about.hidden = true;
  describe(first.name, about);
  card.update = (m) => {
    setBadge(state, m.state);
    const starting = m.state === "starting" || m.state === "waking";
    progress.parentElement.hidden = !starting;
    if (starting) {
      const share = m.load_s ? Math.min(m.state_for_s / m.load_s, 0.98) : null;
      setProgress(progress, share);
      say(progressText, `${seconds(m.state_for_s)}${m.load_s ? ` of about ${seconds(m.load_s)}` : ", never loaded before"}`);
    }
    say(why, reasonOf(m));
    const shown = factsOf(m);
    keyed(facts, shown, (f) => f[0], makeFact, (node, f) => say(node.lastChild, f[1]));
    operate.update(m);
  };
  return card;
}

/** Show how much of a bar is done, 0 to 1; null where that is not known. */
export function setProgress(bar, share) {
  bar.classList.toggle("unknown", share === null);
  bar.firstChild.style.setProperty("width", share === null ? "" : `${100 * share}%`);
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", Math.round(100 * share));
}

function reasonOf(m) {
  if (m.unreadable) return m.unreadable;
  if (m.problem) return m.problem;
  if (m.state === "failed") return `${m.last_failure ?? "It failed to start."}${m.retry_in_s ? ` Next try in ${seconds(m.retry_in_s)}.` : ""}`;
  return "";
}

function factsOf(m) {
  if (m.queue === undefined) return [];
  const facts = [
    ["waiting", String(m.queue.length)],
    ["running", m.concurrency > 1 ? `${m.running.length} of ${m.concurrency}` : String(m.running.length)],
    ["memory", m.held_bytes ? bytes(m.held_bytes) : "none"],
    ["served", String(m.served)],
    ["per minute", String(m.served_last_minute)],
  ];
  if (m.service_s !== null) facts.push(["a run takes", seconds(m.service_s)]);
  if (m.queue.length) facts.push(["wait", seconds(m.queue.at(-1).eta_s)]);
  if (m.backend !== "local") facts.push(["runs at", m.backend]);
  return facts;
}

function makeFact([name]) {
  return h("div", {}, h("dt", {}, words(name)), h("dd"));
}

/** What the package says of itself in its view.json. */
async function describe(name, node) {
  try {
    const model = encodeURIComponent(name.split("@")[0]);
    const { about } = await json(`/models/${model}/view.json`, { quiet: true });
    say(node, about ?? "");
  } catch {
    // a card without a description is still a card
  }
  node.hidden = !node.textContent;
}

function memoryCard() {
  const bar = h("div", { class: "bar memory", role: "img" });
  const legend = h("ul", { class: "legend" });
  const total = h("span", { class: "muted small num" });
  const node = h("section", { class: "card", hidden: true, "aria-labelledby": "memory-title" }, h("div", { class: "row spread" }, h("h2", { id: "memory-title" }, "Memory"), total), bar, legend);
  return {
    node,
    update(memory, models) {
      node.hidden = !memory?.budget_bytes;
      if (node.hidden) return;
      const held = models.filter((m) => m.held_bytes > 0);
      const used = held.reduce((sum, m) => sum + m.held_bytes, 0);
      const free = { name: "free", colour: "free", held_bytes: Math.max(memory.budget_bytes - used, 0) };
      keyed(bar, held, (m) => m.name, (m) => h("i", { class: m.colour, title: m.name }), (part, m) =>
        part.style.setProperty("width", `${(100 * m.held_bytes) / Math.max(memory.budget_bytes, used)}%`));
      bar.setAttribute("aria-label", held.length ? held.map((m) => `${m.name} ${bytes(m.held_bytes)}`).join(", ") : "No model is loaded");
      keyed(legend, [...held, free], (m) => m.name, (m) => h("li", {}, h("i", { class: `swatch ${m.colour}` }), h("span")), (item, m) =>
        say(item.lastChild, `${m.name} ${bytes(m.held_bytes)}`));
      say(total, `${bytes(used)} of ${bytes(memory.budget_bytes)}`);
    },
  };
}

function queueCard() {
  const list = h("ul", { class: "list" });
  const empty = h("p", { class: "muted small" }, "Nothing waits.");
  const node = h("section", { class: "card", hidden: true, "aria-labelledby": "queue-title" }, h("h2", { id: "queue-title" }, "Queue"), empty, list);
  return {
    node,
    update(models, known) {
      node.hidden = !known;
      const waiting = models.flatMap((m) => (m.queue ?? []).map((q) => ({ ...q, model: m.name })));
      empty.hidden = waiting.length > 0;
      keyed(list, waiting.slice(0, 20), (q) => q.id, makeRow, (row, q) =>
        say(row.lastChild, `number ${q.position}, starts in about ${seconds(q.eta_s)}`));
    },
  };
}

function makeRow(p) {
  return h("li", {}, h("strong", {}, p.model), h("a", { class: "mono grow", href: new URL(`predictions/${encodeURIComponent(p.id)}`, ROOT).href }, p.id.slice(0, 10)), h("span", { class: "small muted num" }));
}

function activityCard() {
  const list = h("ul", { class: "list" });
  const empty = h("p", { class: "muted small" }, "No prediction yet.");
  const seen = new Map(); // the latest last
  function show() {
    empty.hidden = seen.size > 0;
    keyed(list, [...seen.values()].reverse(), (p) => p.id, makeRow, (row, p) => say(row.lastChild, p.status));
  }
  return {
    node: h("section", { class: "card", hidden: true, "aria-labelledby": "activity-title" }, h("h2", { id: "activity-title" }, "Activity"), empty, list),
    add(change) {
      seen.delete(change.id);
      seen.set(change.id, change);
      if (seen.size > RECENT) seen.delete(seen.keys().next().value);
      show();
    },
    /** Show the card, with what the box keeps from before this page was opened. */
    async begin() {
      this.node.hidden = false;
      const { results } = await json("/v1/predictions", { quiet: true }).catch(() => ({ results: [] }));
      const kept = results.slice(0, RECENT - seen.size).reverse().filter((p) => !seen.has(p.id));
      const now = [...seen];
      seen.clear();
      kept.forEach((p) => seen.set(p.id, { ...p, model: p.model.slice(p.model.indexOf("/") + 1) }));
      now.forEach(([id, change]) => seen.set(id, change));
      show();
    },
  };
}

function leftOutCard() {
  const list = h("ul", { class: "list" });
  const node = h("section", { class: "card", hidden: true, "aria-labelledby": "left-title" }, h("h2", { id: "left-title" }, "Left out"), h("p", { class: "small muted" }, "These folders have a cog.yaml but cannot be served."), list);
  return {
    node,
    update(leftOut) {
      const items = Object.entries(leftOut);
      node.hidden = !items.length;
      keyed(list, items, (i) => i[0], ([name]) => h("li", {}, h("strong", {}, name), h("span", { class: "small error grow" })), (row, i) => say(row.lastChild, i[1]));
    },
  };
}
