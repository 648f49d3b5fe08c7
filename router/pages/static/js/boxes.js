// Detections drawn on the picture that was sent: [{box: [x1, y1, x2, y2] in px, label, score?}].
// Labels keep out of each other's way; a table says the same to a screen reader.

import { h, say, trimmed, words } from "./dom.js";

const COLOURS = 6;
const MOST = 300;

const labelOf = (item) => (item.label === null || item.label === "" ? "(no label)" : String(item.label));

/** `picture`: the File that was sent, or undefined when this browser does not have it. */
export function showBoxes(all, picture) {
  const items = all.slice(0, MOST);
  const labels = [...new Set(items.map(labelOf))];
  const scored = items.every((i) => Number.isFinite(i.score));
  const lowest = scored ? Math.min(...items.map((i) => i.score)) : 0;
  let size = [Math.max(1, ...items.map((i) => i.box[2])), Math.max(1, ...items.map((i) => i.box[3]))];
  const off = new Set();
  let least = 0;

  const layer = h("div", { class: "layer", "aria-hidden": "true" });
  const frame = h("div", { class: "boxes" }, layer);
  const marks = items.map((item) => {
    const tag = h("span", { class: "tag", dir: "auto" }, scored ? `${labelOf(item)} ${item.score.toFixed(2)}` : labelOf(item));
    const node = h("div", { class: `box b${labels.indexOf(labelOf(item)) % COLOURS}` }, tag);
    layer.append(node);
    return { item, node, tag };
  });
  if (picture) {
    const url = URL.createObjectURL(picture);
    const image = h("img", { src: url, alt: "The picture that was sent", onload: () => ((size = [image.naturalWidth, image.naturalHeight]), place()), onerror: () => (image.remove(), blank()) });
    frame.prepend(image);
  } else blank();
  function blank() {
    frame.classList.add("blank");
    frame.style.setProperty("aspect-ratio", `${size[0]} / ${size[1]}`);
  }

  const count = h("p", { class: "small muted", role: "status" });
  const rows = h("tbody");
  const chips = labels.length > 1 ? h("div", { class: "row", role: "group", "aria-label": "Labels to show" }, labels.slice(0, 40).map(chip)) : null;
  const slider = scored && items.length > 1 ? h("label", { class: "row small" }, "Score at least", h("input", { type: "range", class: "score", min: String(Math.floor(lowest * 100) / 100), max: "1", step: "0.01", value: "0", oninput: (e) => ((least = Number(e.target.value)), filter()) })) : null;

  function chip(label, i) {
    const button = h("button", { type: "button", class: "compact", "aria-pressed": "true", onclick: toggle }, h("i", { class: `swatch c${i % COLOURS}` }), label.slice(0, 60));
    function toggle() {
      if (!off.delete(label)) off.add(label);
      button.setAttribute("aria-pressed", String(!off.has(label)));
      filter();
    }
    return button;
  }
  function filter() {
    marks.forEach(({ item, node }) => (node.hidden = off.has(labelOf(item)) || (scored && item.score < least)));
    const shown = marks.filter(({ node }) => !node.hidden);
    say(count, shown.length === all.length ? `${all.length} found` : `${shown.length} of ${all.length} shown`);
    rows.replaceChildren(...shown.map(({ item, node }) => row(item, node)));
    place();
  }
  function row(item, node) {
    const light = (on) => () => frame.classList.toggle("picking", on) || node.classList.toggle("lit", on);
    return h("tr", { onmouseenter: () => lit(node, true), onmouseleave: () => lit(node, false), onclick: light(true) }, h("td", { dir: "auto" }, labelOf(item)), scored ? h("td", { class: "num" }, trimmed(item.score)) : null, h("td", { class: "num" }, item.box.map((v) => Math.round(v)).join(", ")));
  }
  function lit(node, on) {
    frame.classList.toggle("picking", on);
    node.classList.toggle("lit", on);
  }
  function place() {
    const [width, height] = size;
    for (const { item, node } of marks) {
      const [x1, y1, x2, y2] = item.box;
      const set = (name, value) => node.style.setProperty(name, `${100 * value}%`);
      set("left", x1 / width);
      set("top", y1 / height);
      set("width", Math.max(0, x2 - x1) / width);
      set("height", Math.max(0, y2 - y1) / height);
    }
    placeTags();
  }
  /** Each tag goes to the first corner where it covers no other tag and does not leave the picture. */
  function placeTags() {
    const area = frame.getBoundingClientRect();
    if (!area.width) return;
    const taken = [];
    for (const { node, tag } of marks) {
      if (node.hidden) continue;
      const box = node.getBoundingClientRect();
      const { width, height } = tag.getBoundingClientRect();
      const left = box.left - area.left;
      const top = box.top - area.top;
      const inside = (x) => Math.max(0, Math.min(x, area.width - width));
      const corners = [
        [left, top - height],
        [left, top],
        [left, top + box.height],
        [left, top + box.height - height],
        [left + box.width - width, top - height],
        [left + box.width - width, top + box.height],
        ...Array.from({ length: 12 }, (_, i) => [left, top + (i + 1) * height]),
      ].map(([x, y]) => [inside(x), y]);
      const free = ([x, y]) => y >= 0 && y + height <= area.height && !taken.some((t) => x < t[0] + t[2] && x + width > t[0] && y < t[1] + t[3] && y + height > t[1]);
      const [x, y] = corners.find(free) ?? [inside(left), Math.max(0, top)];
      taken.push([x, y, width, height]);
      tag.style.setProperty("transform", `translate(${x - left}px, ${y - top}px)`);
    }
  }
  new ResizeObserver(placeTags).observe(frame);
  filter();
  const head = ["label", ...(scored ? ["score"] : []), "box (left, top, right, bottom)"];
  return h("div", { class: "stack" }, h("div", { class: "row spread" }, count, slider), chips, frame, h("details", {}, h("summary", {}, "As a table"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Detections" }, h("table", {}, h("thead", {}, h("tr", {}, head.map((c) => h("th", { scope: "col" }, words(c))))), rows))));
}
