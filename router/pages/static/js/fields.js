// One control for each kind of input. Each field: {name, node, read, write, problem, fail, focus}.
// `read` gives the form parts to send, [] where the model's own default holds.

import { described, h, say, words } from "./dom.js";
import { fileField } from "./files.js";
import { kindOfValue, objection, parsed, readAs } from "./schema.js";

const SLIDER_STEPS = 2000; // a slider with more places cannot be set by hand
const SHORT = 80; // characters

/** The field for an input. `changed` is called after every change by the person. */
export function makeField(spec, hints, changed) {
  if (spec.kind === "union") return unionField(spec, hints, changed);
  if (spec.kind === "file" || spec.items === "file") return fileField(spec, hints, changed);
  if (spec.kind === "array") return listField(spec, changed);
  // A switch is on or off: it cannot say "the model decides".
  const open = spec.kind === "boolean" && spec.fallback === undefined;
  if (open) return choiceField({ ...spec, schema: { ...spec.schema, enum: [true, false] } }, changed);
  if (spec.kind === "boolean") return switchField(spec, changed);
  if (spec.schema.enum) return choiceField(spec, changed);
  return textField(spec, changed);
}

/** The frame of a field: label, what the package says about it, the place of an error. */
export function frame(spec, control, { labelled = true, tag = "div" } = {}) {
  const id = `in-${spec.name}`;
  const error = h("p", { class: "error", id: `${id}-error`, "aria-live": "polite" });
  const hint = spec.schema.description ? h("p", { class: "hint", id: `${id}-hint`, dir: "auto" }, described(spec.schema.description)) : null;
  const title = [words(spec.name), spec.required ? h("span", { class: "muted", "aria-hidden": "true" }, " · required") : null];
  const label = labelled ? h("label", { for: id }, title) : h(tag === "fieldset" ? "legend" : "span", { class: "label", id: `${id}-label` }, title);
  const node = h(tag, { class: "field", "data-input": spec.name }, label, control, hint, error);
  const marked = () => [...node.querySelectorAll("input, textarea, select")].filter((n) => n.type !== "file" && n.type !== "range");
  return {
    node,
    describedBy: [hint && hint.id, error.id].filter(Boolean).join(" "),
    fail(message) {
      say(error, message);
      marked().forEach((n) => (message ? n.setAttribute("aria-invalid", "true") : n.removeAttribute("aria-invalid")));
    },
  };
}

const show = (value) => (value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));

function textField(spec, changed) {
  const { schema, kind } = spec;
  const id = `in-${spec.name}`;
  const numeric = kind === "integer" || kind === "number";
  const initial = show(spec.fallback);
  const long = kind === "object" || (!numeric && !spec.secret && !(schema.maxLength <= SHORT) && kind !== "any");
  const common = { id, name: spec.name, value: initial, oninput: typed, spellcheck: numeric || spec.secret ? "false" : null, "aria-required": spec.required ? "true" : null };
  const input = long
    ? h("textarea", { rows: "1", ...(kind === "object" ? { class: "code", placeholder: '{"a": 1}' } : {}), ...common })
    : h("input", { type: spec.secret ? "password" : "text", inputmode: numeric ? (kind === "integer" && !(schema.minimum < 0) ? "numeric" : "decimal") : null, autocomplete: "off", ...common });
  if (numeric && spec.fallback === undefined) input.placeholder = "auto";
  const slider = sliderFor(spec, input, typed);
  const field = frame(spec, slider ? h("div", { class: "slider" }, slider, input) : input);
  input.setAttribute("aria-describedby", field.describedBy);
  slider?.setAttribute("aria-label", `${words(spec.name)}, slider`);

  function typed() {
    slider?.follow();
    field.fail("");
    changed();
  }
  const api = {
    name: spec.name,
    node: field.node,
    fail: field.fail,
    focus: () => input.focus(),
    read: () => (input.value === initial || (numeric && !input.value.trim()) || (spec.secret && !input.value) ? [] : [input.value]),
    write(value) {
      input.value = show(value);
      slider?.follow();
      field.fail("");
    },
    problem() {
      if (spec.required && !input.value && spec.fallback === undefined) return "This is required.";
      if (!api.read().length) return "";
      return objection(kind === "any" ? "string" : kind, schema, input.value);
    },
  };
  input.addEventListener("blur", () => field.fail(input.value ? api.problem() : ""));
  if (spec.required && spec.fallback === undefined) api.read = () => (input.value ? [input.value] : []);
  return api;
}

function sliderFor({ kind, schema }, input, typed) {
  const { minimum: min, maximum: max } = schema;
  if (!["integer", "number"].includes(kind) || min === undefined || max === undefined) return null;
  const step = kind === "integer" ? 1 : (max - min) / 100;
  if ((max - min) / step > SLIDER_STEPS) return null;
  const slider = h("input", { type: "range", min, max, step: kind === "integer" ? 1 : Number(step.toPrecision(3)) });
  slider.follow = () => {
    const value = Number(input.value);
    slider.classList.toggle("unset", !input.value.trim());
    slider.value = input.value.trim() && Number.isFinite(value) ? value : (min + max) / 2;
  };
  slider.addEventListener("input", () => {
    input.value = slider.value;
    typed();
  });
  slider.follow();
  return slider;
}

function choiceField(spec, changed) {
  const id = `in-${spec.name}`;
  const initial = show(spec.fallback);
  const blank = spec.fallback === undefined ? [h("option", { value: "" }, spec.required ? "Choose …" : "the model decides")] : [];
  const select = h("select", { id, onchange }, ...blank, spec.schema.enum.map((v) => h("option", { value: v }, String(v))));
  select.value = initial;
  const field = frame(spec, select);
  select.setAttribute("aria-describedby", field.describedBy);
  function onchange() {
    field.fail("");
    changed();
  }
  return {
    name: spec.name,
    node: field.node,
    fail: field.fail,
    focus: () => select.focus(),
    read: () => (select.value === initial ? [] : [select.value]),
    write: (value) => (select.value = show(value)),
    problem: () => (spec.required && spec.fallback === undefined && !select.value ? "Choose one." : ""),
  };
}

function switchField(spec, changed) {
  const id = `in-${spec.name}`;
  const initial = spec.fallback === true;
  const box = h("input", { type: "checkbox", id, checked: initial, onchange: changed });
  const field = frame(spec, null);
  const label = field.node.querySelector("label");
  const row = h("div", { class: "row" }, box);
  field.node.prepend(row);
  row.append(label);
  box.setAttribute("aria-describedby", field.describedBy);
  return {
    name: spec.name,
    node: field.node,
    fail: field.fail,
    focus: () => box.focus(),
    read: () => (box.checked === initial ? [] : [String(box.checked)]),
    write: (value) => (box.checked = value === true || value === "true"),
    problem: () => "",
  };
}

const KINDS = { string: "text", integer: "a whole number", number: "a number", boolean: "yes or no", array: "a list", object: "an object (JSON)", file: "a file" };

/** An input of several types: a field for the one that is chosen. */
function unionField(spec, hints, changed) {
  const kinds = spec.members.map((m) => m.kind);
  const select = h("select", { class: "kind", "aria-label": `${words(spec.name)}, kind`, onchange: () => use(select.value, undefined, true) }, kinds.map((k) => h("option", { value: k }, KINDS[k] ?? k)));
  const note = h("p", { class: "small muted", role: "status" });
  const row = h("div", { class: "row" }, h("span", { class: "small muted" }, "Kind"), select, note);
  const node = h("div", { class: "stack tight" }, row);
  const initial = spec.fallback === undefined || spec.fallback === null ? undefined : fitting(spec.fallback);
  let inner = null;

  function fitting(value) {
    const kind = kindOfValue(value);
    if (kinds.includes(kind)) return kind;
    return kind === "integer" && kinds.includes("number") ? "number" : kinds[0];
  }
  function use(kind, value, byHand = false) {
    const member = spec.members.find((m) => m.kind === kind);
    const fallback = kind === initial ? spec.fallback : undefined;
    const field = makeField({ ...member, fallback }, hints, touched);
    if (inner) inner.node.replaceWith(field.node);
    else node.prepend(field.node);
    inner = field;
    select.value = kind;
    if (value !== undefined) inner.write(value);
    if (byHand) touched();
  }
  /** A form has only texts: a text that looks like another of the types is read as that. */
  function touched() {
    const [part, ...others] = inner.read();
    const kind = typeof part === "string" && select.value === "string" && !others.length ? readAs(kinds, part) : select.value;
    say(note, kind === select.value ? "" : `The box reads this as ${KINDS[kind]}.`);
    changed();
  }
  use(initial ?? kinds[0]);
  return {
    name: spec.name,
    node,
    fail: (message) => inner.fail(message),
    focus: () => inner.focus(),
    read() {
      const parts = inner.read();
      // A list of one would be read as its only item.
      return select.value === "array" && parts.every((p) => typeof p === "string" && !p.startsWith("[")) && parts.length ? [JSON.stringify(inner.values())] : parts;
    },
    write(value) {
      use(value === undefined || value === null ? (initial ?? kinds[0]) : fitting(value), value);
      touched();
    },
    problem: () => inner.problem(),
  };
}

function listField(spec, changed) {
  const list = h("div", { class: "stack items" });
  const initial = spec.fallback ?? [];
  const add = h("button", { type: "button", class: "compact", onclick: () => append("").focus() }, "Add one");
  const field = frame(spec, h("div", { class: "stack" }, list, h("div", {}, add)), { labelled: false, tag: "fieldset" });
  const inputs = () => [...list.querySelectorAll("input, select, textarea")];
  const values = () => inputs().map((i) => i.value).filter((v) => v !== "");
  const kind = spec.items;

  function append(value) {
    const number = list.children.length + 1;
    const common = { "aria-label": `${words(spec.name)} ${number}`, "aria-describedby": field.describedBy, oninput: touched };
    const input = itemControl(spec, common);
    input.value = show(value);
    const remove = h("button", { type: "button", class: "compact quiet", "aria-label": `Remove ${words(spec.name)} ${number}`, onclick: () => (row.remove(), touched(), add.focus()) }, "Remove");
    const row = h("div", { class: "row item" }, input, remove);
    list.append(row);
    return input;
  }
  function touched() {
    field.fail("");
    changed();
  }
  initial.forEach(append);
  return {
    name: spec.name,
    node: field.node,
    fail: field.fail,
    focus: () => (inputs()[0] ?? add).focus(),
    values: () => values().map((v) => (["string", "file"].includes(kind) ? v : parsed(v))),
    read() {
      const now = values();
      if (JSON.stringify(now) === JSON.stringify(initial.map(show))) return [];
      // One part that begins with a bracket reads as a JSON array, and no part at all as the default.
      if (!now.length || now.some((v) => v.trimStart().startsWith("["))) return [JSON.stringify(now)];
      return now;
    },
    write(value) {
      list.replaceChildren();
      [value].flat().filter((v) => v !== null && v !== undefined).forEach(append);
    },
    problem() {
      if (spec.required && spec.fallback === undefined && !values().length) return "Add at least one.";
      return values().map((v) => objection(kind, spec.schema.items ?? {}, v)).find(Boolean) ?? "";
    },
  };
}

/** The control for one item of a list. */
function itemControl({ items, secret, schema }, common) {
  const choices = items === "boolean" ? [true, false] : schema.items?.enum;
  if (choices) return h("select", common, h("option", { value: "" }, "Choose …"), choices.map((v) => h("option", { value: v }, String(v))));
  if (items === "object") return h("textarea", { rows: "1", class: "code", spellcheck: "false", placeholder: '{"a": 1}', ...common });
  const inputmode = { integer: "numeric", number: "decimal" }[items] ?? null;
  return h("input", { type: secret ? "password" : "text", autocomplete: "off", inputmode, ...common });
}
