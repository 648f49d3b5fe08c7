// The form of a model, made from its schema. What is rarely used is folded.

import { h } from "./dom.js";
import { makeField } from "./fields.js";

const UNFOLDED = 6; // so many inputs are shown whatever they are
const FIRST = 3; // optional ones shown of a longer form

/** The form: {node, values, write, check, fail}. `run(values)` is called when it is sent. */
export function makeForm(specs, view, { run, changed }) {
  const fields = specs.map((spec) => makeField(spec, view, changed));
  const byName = new Map(fields.map((f) => [f.name, f]));
  const [open, folded] = split(specs, view);
  const nodeOf = (spec) => byName.get(spec.name).node;
  const more = folded.length ? h("details", { class: "more" }, h("summary", {}, `More options (${folded.length})`), h("div", { class: "stack fields" }, folded.map(nodeOf))) : null;
  const button = h("button", { class: "primary", type: "submit" }, "Run");
  const node = h(
    "form",
    { class: "stack fields", novalidate: true, onsubmit: submit },
    specs.length ? null : h("p", { class: "muted" }, "This model takes no inputs."),
    open.map(nodeOf),
    more,
    h("div", { class: "row send" }, button, h("span", { class: "small muted keys" }, "Ctrl + Enter runs it")),
  );
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) node.requestSubmit();
  });

  function submit(event) {
    event.preventDefault();
    if (!button.ariaDisabled && check()) run(values());
  }
  /** What would be sent: {input: [texts and Files]}, without what has the model's default. */
  function values() {
    return Object.fromEntries(fields.map((f) => [f.name, f.read()]).filter(([, parts]) => parts.length));
  }
  function check() {
    const wrong = fields.map((f) => [f, f.problem()]);
    wrong.forEach(([f, problem]) => f.fail(problem));
    return !focusOn(wrong.filter(([, problem]) => problem).map(([f]) => f));
  }
  function focusOn(failed) {
    if (!failed.length) return false;
    if (more?.contains(failed[0].node)) more.open = true;
    failed[0].focus();
    failed[0].node.scrollIntoView({ block: "center" });
    return true;
  }
  return {
    node,
    values,
    /** Fill in the values of an object. What it does not name keeps its value. */
    write(given) {
      for (const [name, value] of Object.entries(given)) byName.get(name)?.write(value);
      if (more && folded.some((s) => byName.get(s.name).read().length)) more.open = true;
      changed();
    },
    /** Show what the box objected to; returns what belongs to no field. */
    fail(problems) {
      const here = problems.filter((p) => byName.has(p.input));
      here.forEach((p) => byName.get(p.input).fail(`${p.message.charAt(0).toUpperCase()}${p.message.slice(1)}.`));
      focusOn(here.map((p) => byName.get(p.input)));
      return problems.filter((p) => !byName.has(p.input));
    },
    /** Files from the clipboard go to the first field that has room for their kind. */
    paste(files) {
      const kind = files[0].type.split("/")[0];
      const fits = fields.filter((f) => f.take && (f.media === kind || f.media === "any"));
      (fits.find((f) => !f.read().length) ?? fits[0])?.take(files);
    },
    /** While it is sent. A button that is disabled would lose the focus of the keyboard. */
    busy(is) {
      button.ariaDisabled = is ? "true" : null;
    },
  };
}

function split(specs, view) {
  const first = view.first ?? [];
  const order = (s) => (first.includes(s.name) ? first.indexOf(s.name) : first.length);
  const sorted = specs.toSorted((a, b) => order(a) - order(b));
  if (!first.length && specs.length <= UNFOLDED) return [sorted, []];
  let left = first.length ? 0 : FIRST;
  const isOpen = (s) => first.includes(s.name) || s.required || (s.kind === "file" && !s.schema.deprecated) || left-- > 0;
  const open = sorted.filter(isOpen);
  return [open, sorted.filter((s) => !open.includes(s))];
}
