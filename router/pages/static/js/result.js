// Shows an output by its shape. A package's view.json says what comes first; without it the shape
// decides. The whole output as JSON is always there, folded.

import { showBoxes } from "./boxes.js";
import { bytes, h, trimmed, words } from "./dom.js";
import { isDone, fileUrl } from "./run.js";
import { showTimeline } from "./timeline.js";

const KINDS = [
  ["image", /\.(png|jpe?g|webp|gif|avif|bmp|svg)$/i],
  ["audio", /\.(wav|mp3|ogg|oga|m4a|flac|aac|opus|weba)$/i],
  ["video", /\.(mp4|webm|mov|m4v|ogv)$/i],
];
const MOST_ROWS = 200;
const MOST_COLUMNS = 8;
const LONG = 90; // characters: more is a text and not a fact
const CUT = 200;
const MOST_TEXT = 200000;

/**
 * Put the prediction's output into `place`. `files`: what was sent, {input: [File]}. `order`: the
 * names of the output's members as the package has them; the answer itself is sorted by alphabet.
 * `isOneText`: the output is a list of pieces of one text.
 */
export function showResult(place, p, { specs, view, files, order, isOneText }) {
  const parts = [];
  const { output } = p;
  const scope = { p, isOneText, input: (media) => inputOf(specs, files, media) };
  const rest = isObject(output) ? ordered(output, order) : { output };
  const paths = (entries = []) => entries.forEach((e) => delete rest[at(e.at).at(0)]);

  if (view.headline && isObject(output)) {
    parts.push(headline(view.headline, output));
    view.headline.filter((e) => at(e.at).length === 1).forEach((e) => delete rest[at(e.at)[0]]);
  }
  (view.hide ?? []).forEach((pointer) => delete rest[at(pointer)[0]]);
  // A list of one picture beside the same picture says nothing more.
  for (const [key, value] of Object.entries(rest)) {
    if (Array.isArray(value) && value.length === 1 && fileUrl(value[0]) && fileUrl(output[key.replace(/s$/, "")])) delete rest[key];
  }
  if (view.compare && isObject(output)) {
    const url = fileUrl(valueAt(output, view.compare.at));
    const before = files[view.compare.with]?.[0];
    if (url && before) {
      parts.push(compare(before, url, at(view.compare.at).at(-1), p));
      paths([view.compare]);
    }
  }
  const tracks = tracksOf(rest, view);
  tracks.forEach((t) => delete rest[t.key]);
  for (const [key, value] of Object.entries(rest)) {
    const shown = showOne(key, value, scope, !isObject(output));
    if (shown) {
      parts.push(shown);
      delete rest[key];
    }
  }
  if (tracks.length) parts.splice(view.headline ? 1 : 0, 0, showTimeline(tracks, scope.input("audio")));
  // A package that says what comes first has its other numbers last.
  const facts = factsOf(rest);
  if (facts && view.headline) parts.push(h("details", { class: "part", open: Object.keys(rest).length <= 8 }, h("summary", {}, "More numbers"), facts));
  else if (facts) parts.splice(1, 0, facts); // after the first thing to look at, if there is one
  for (const [key, value] of Object.entries(rest)) {
    if (isObject(value) && Object.keys(value).length) parts.push(h("details", {}, h("summary", {}, words(key)), factsOf(value) ?? json(value)));
  }
  const gone = specs.filter((s) => s.media && !files[s.name]?.length && p.input?.[s.name]);
  if (gone.length && isDone(p)) parts.push(h("p", { class: "small muted" }, `${gone.map((s) => words(s.name)).join(", ")}: not shown here. The box deletes what was sent; only the browser that sent it keeps it.`));
  const all = whole(p);
  if (!parts.length && isDone(p)) {
    const isEmpty = [null, undefined, ""].includes(output) || (typeof output === "object" && !Object.keys(output).length);
    if (isEmpty) parts.push(h("p", { class: "muted" }, "The model returned nothing to show."));
    else all.open = true;
  }
  parts.push(all);
  place.querySelectorAll("video, audio").forEach((m) => m.pause());
  place.replaceChildren(...parts);
}

function ordered(output, order) {
  const place = (key) => (order.includes(key) ? order.indexOf(key) : order.length);
  return Object.fromEntries(Object.entries(output).toSorted(([a], [b]) => place(a) - place(b)));
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const at = (pointer) => pointer.split("/").slice(1).map((s) => s.replaceAll("~1", "/").replaceAll("~0", "~"));
const valueAt = (value, pointer) => at(pointer).reduce((inner, step) => inner?.[step], value);

function inputOf(specs, files, media) {
  const named = specs.filter((s) => s.media === media || s.media === "any").flatMap((s) => files[s.name] ?? []);
  return named.find((f) => f.type?.startsWith(`${media}/`)) ?? (media === "audio" ? undefined : named[0]);
}

function section(key, ...content) {
  return h("section", { class: "stack part" }, key === "output" ? null : h("h3", {}, words(key)), ...content);
}

const prose = (text) => h("p", { class: "prose", dir: "auto" }, text.slice(0, MOST_TEXT), text.length > MOST_TEXT ? h("span", { class: "muted" }, ` … (${bytes(text.length)} in all)`) : null);

/** One member of the output, or null when it is a plain fact. */
function showOne(key, value, scope, alone) {
  if (fileUrl(value)) return section(key, file(fileUrl(value), key, scope.p, alone ? scope.input("image") : null));
  if (value === "") return null;
  if (typeof value === "string") {
    if (value.length <= LONG && !value.includes("\n") && !alone) return null;
    return section(key, prose(value));
  }
  if (!Array.isArray(value) || !value.length) return null;
  if (value.every((v) => fileUrl(v))) return section(key, h("div", { class: "gallery" }, value.map((v, i) => file(fileUrl(v), `${key} ${i + 1}`, scope.p, null))));
  if (value.every(isBox)) return section(key, showBoxes(value, scope.input("image")));
  if (value.every(isObject)) return folded(key, value.length, () => table(value));
  if (value.every((v) => typeof v === "string")) {
    if (alone && scope.isOneText) return section(key, prose(value.join("")));
    return section(key, h("ul", { class: "plain" }, value.slice(0, MOST_ROWS).map((v) => h("li", { dir: "auto" }, v.slice(0, 2000)))));
  }
  if (value.length > 12) return folded(key, value.length, () => json(value));
  return null;
}

function folded(key, count, make) {
  const node = h("details", { class: "part", open: count <= 8, ontoggle: fill }, h("summary", {}, `${words(key)} (${count})`));
  function fill() {
    if (node.open && node.children.length === 1) node.append(make());
  }
  fill();
  return node;
}

// ---- the first thing to see ----------------------------------------------------------------

function headline(entries, output) {
  const items = entries.map((entry, i) => {
    const value = valueAt(output, entry.at);
    const text = typeof value === "number" ? trimmed(value) : value === null || value === undefined ? "–" : value === true ? "yes" : value === false ? "no" : String(value).slice(0, CUT);
    return h("div", { class: i ? "" : "first" }, h("dt", {}, entry.label ?? words(at(entry.at).at(-1))), h("dd", {}, text, entry.unit && value !== null && value !== undefined ? h("span", { class: "unit" }, ` ${entry.unit}`) : null));
  });
  return h("dl", { class: "headline" }, items);
}

function factsOf(value) {
  const facts = Object.entries(value).filter(([, v]) => v !== null && v !== undefined && v !== "" && !isObject(v) && !(Array.isArray(v) && (!v.length || v.some((i) => typeof i === "object"))));
  if (!facts.length) return null;
  const text = (v) => (typeof v === "number" ? trimmed(v) : v === true ? "yes" : v === false ? "no" : Array.isArray(v) ? v.map((i) => (typeof i === "number" ? trimmed(i) : i)).join(", ") : String(v));
  return h("dl", { class: "outputs" }, facts.map(([k, v]) => h("div", {}, h("dt", {}, words(k)), h("dd", { dir: "auto" }, text(v).slice(0, 2000)))));
}

// ---- files -----------------------------------------------------------------------------------

function file(url, key, p, before) {
  const named = url.startsWith("data:") ? `.${/^data:\w+\/([\w]+)/.exec(url)?.[1] ?? "bin"}` : new URL(url).pathname;
  const kind = url.startsWith("data:") ? /^data:(image|audio|video)\//.exec(url)?.[1] : KINDS.find(([, pattern]) => pattern.test(named))?.[0];
  const suffix = /\.\w+$/.exec(named)?.[0] ?? "";
  const name = `${p.model}-${key.replaceAll(/\W+/g, "-")}${suffix}`;
  const download = h("a", { class: "button compact", href: url, download: name }, "Download", h("span", { class: "sr-only" }, ` ${name}`));
  if (kind === "image" && before && isDone(p)) return h("div", { class: "stack" }, slider(before, url), h("div", {}, download));
  const broken = (event) => event.target.replaceWith(h("p", { class: "small muted" }, `This browser does not show ${suffix || "it"}.`));
  const show = {
    image: () => h("a", { href: url, target: "_blank", rel: "noopener", class: "shown" }, h("img", { src: url, alt: words(key), onerror: broken })),
    audio: () => h("audio", { src: url, controls: true, preload: "metadata", onerror: broken }),
    video: () => h("video", { src: url, controls: true, preload: "metadata", onerror: broken }),
  }[kind];
  return h("figure", { class: "stack" }, show ? show() : h("p", { class: "small mono" }, name), h("div", {}, download));
}

function compare(before, url, key, p) {
  const suffix = /\.\w+$/.exec(new URL(url, location.href).pathname)?.[0] ?? "";
  const download = h("a", { class: "button compact", href: url, download: `${p.model}-${key}${suffix}` }, "Download");
  return section(key, slider(before, url), h("div", {}, download));
}

/** Two pictures on each other and a slider between them. */
function slider(before, url) {
  const [after, what] = ["The result", "What you sent"];
  const under = h("img", { src: before instanceof File ? URL.createObjectURL(before) : before, alt: what, class: "under", onerror: () => node.replaceWith(h("a", { href: url, target: "_blank", rel: "noopener", class: "shown" }, h("img", { src: url, alt: after }))) });
  const over = h("img", { src: url, alt: after });
  const range = h("input", { type: "range", min: "0", max: "100", value: "0", "aria-label": `How much of ${what.toLowerCase()} to see`, oninput: move });
  const frame = h("div", { class: "compare" }, over, h("div", { class: "clip" }, under));
  const node = h("div", { class: "stack tight" }, frame, h("div", { class: "row ends small muted" }, h("span", {}, after), range, h("span", {}, what)));
  function move() {
    frame.style.setProperty("--cut", `${100 - range.value}%`);
  }
  move();
  return node;
}

// ---- lists -----------------------------------------------------------------------------------

const isBox = (v) => isObject(v) && Array.isArray(v.box) && v.box.length === 4 && v.box.every(Number.isFinite) && "label" in v;
const isInterval = (v, from, to) => isObject(v) && Number.isFinite(v[from]) && Number.isFinite(v[to]);

/** The lists that are drawn along the time: as view.json says, else those with start and end. */
function tracksOf(output, view) {
  if (view.timeline) {
    return view.timeline
      .map((t) => ({ from: "start", to: "end", ...t, key: at(t.at)[0], items: valueAt(output, t.at) ?? [] }))
      .filter((t) => Array.isArray(t.items) && t.items.length)
      .map((t) => ({ ...t, label: t.label ?? words(t.key) }));
  }
  return Object.entries(output)
    .filter(([, v]) => Array.isArray(v) && v.length && v.every((i) => isInterval(i, "start", "end")))
    .map(([key, items]) => ({ key, items, from: "start", to: "end", label: words(key) }));
}

function table(rows) {
  const columns = [...new Set(rows.slice(0, 50).flatMap(Object.keys))].slice(0, MOST_COLUMNS);
  const cell = (v) => (typeof v === "number" ? trimmed(v) : v === null || v === undefined ? "" : typeof v === "object" ? JSON.stringify(v).slice(0, 80) : String(v).slice(0, CUT));
  const body = rows.slice(0, MOST_ROWS).map((r) => h("tr", {}, columns.map((c) => h("td", { class: "num", dir: "auto" }, cell(r[c])))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col" }, words(c))))), h("tbody", {}, body)), rows.length > MOST_ROWS ? h("p", { class: "small muted" }, `The first ${MOST_ROWS} of ${rows.length}.`) : null);
}

// ---- everything, as JSON ---------------------------------------------------------------------

function json(value) {
  const cut = (_, v) => (typeof v === "string" && v.length > CUT ? `${v.slice(0, CUT)}… (${bytes(v.length)})` : v);
  return h("pre", { tabindex: "0", "aria-label": "JSON" }, JSON.stringify(value, cut, 2)?.slice(0, 100000) ?? "null");
}

function whole(p) {
  const node = h("details", { class: "part", ontoggle: fill }, h("summary", {}, "Whole output as JSON"));
  function fill() {
    if (!node.open || node.children.length > 1) return;
    const save = h("button", { type: "button", class: "compact", onclick: () => saveJson(p) }, "Download JSON");
    node.append(h("div", { class: "stack" }, json(p.output), h("div", {}, save)));
  }
  return node;
}

function saveJson(p) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(p.output, null, 2)], { type: "application/json" }));
  h("a", { href: url, download: `${p.model}-${p.id.slice(0, 8)}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
