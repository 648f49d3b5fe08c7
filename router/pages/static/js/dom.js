// Makes and changes nodes. Text is always a text node: nothing here becomes markup.

/**
 * Return a new element. `props`: attributes; `class`, `on…` listeners, `style` as an object and
 * properties that only exist on the object (`value`, `checked`) are set in their own way. Children
 * that are null, undefined or false are left out.
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  set(node, props);
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** Set attributes and listeners of a node, as `h` does. */
export function set(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "style") Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
    else if (["value", "checked", "srcObject", "muted"].includes(name)) node[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  return node;
}

/** The text of a package or of the page as nodes: what stands between backticks is code. */
export function described(text) {
  return text.split(/`([^`\n]+)`/).map((part, i) => (i % 2 ? h("code", {}, part) : part));
}

/** Show a text; a node that shows it already is left alone, so that a screen reader stays silent. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Make the children of `parent` follow `items`: one node for each key, made once by `make`, then
 * told by `update`. Focus and caret in a node survive.
 */
export function keyed(parent, items, keyOf, make, update) {
  const old = parent.rowsByKey ?? new Map();
  const now = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = old.get(key) ?? make(item);
    update?.(node, item);
    now.set(key, node);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  for (const [key, node] of old) if (!now.has(key)) node.remove();
  parent.rowsByKey = now;
}

/** A button that asks once more before it does what cannot be undone. `about`: for a screen reader. */
export function confirmed(label, about, act) {
  const text = h("span", {}, label);
  const button = h("button", { type: "button", class: "compact danger", onclick: press, onblur: reset }, text, h("span", { class: "sr-only" }, ` ${about}`));
  let sure = false;
  function press() {
    if (sure) {
      reset();
      return act();
    }
    sure = true;
    say(text, `${label} for good?`);
  }
  function reset() {
    sure = false;
    say(text, label);
  }
  return button;
}

/** Tell a screen reader. */
export function announce(text) {
  say(document.getElementById("announce"), text);
}

/** `duration` in s as people say it: 0.4 s, 12 s, 3 min 5 s, 2 h 4 min. */
export function seconds(duration) {
  if (duration === null || duration === undefined) return "–";
  if (duration < 10) return `${Math.round(duration * 10) / 10} s`;
  if (duration < 60) return `${Math.round(duration)} s`;
  const minutes = Math.floor(duration / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(duration % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** `count` bytes as people say it: 12 kB, 3.4 MiB. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  if (count < 1000) return `${count} B`;
  if (count < 1 << 20) return `${Math.round(count / 1024)} KiB`;
  if (count < 1 << 30) return `${trimmed(count / (1 << 20))} MiB`;
  return `${trimmed(count / (1 << 30))} GiB`;
}

/** A number with at most three digits that matter. */
export function trimmed(value) {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return String(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)));
}

const UNITS = { hz: "Hz", db: "dB" };

/** An input's or output's name for people: `box_threshold` becomes "Box threshold", `pause_s` "Pause (s)". */
export function words(name) {
  const [, stem, unit] = /^(.+)_(s|ms|px|hz|db|bytes)$/.exec(name) ?? [null, name, ""];
  const spaced = stem.replaceAll(/[_-]+/g, " ").trim();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1) + (unit ? ` (${UNITS[unit] ?? unit})` : "");
}

/** A time of day, with the date when it is not today. `iso`: RFC 3339. */
export function moment(iso) {
  if (!iso) return "–";
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString(undefined, today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });
}
