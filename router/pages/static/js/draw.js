// Draws on a canvas. Strokes are kept as data, so that each can be undone and the drawing keeps its
// size whatever the window does. Exported on a white ground.

import { h } from "./dom.js";

const SIZE = [768, 576];
const COLOURS = [
  ["Black", "#111111"],
  ["Red", "#d62828"],
  ["Green", "#2a9d4a"],
  ["Blue", "#1d5fd6"],
  ["Yellow", "#f2b705"],
];

/** The drawing board. `done(file)` gets the drawing after each stroke, null when it is empty. */
export function makeDrawing(done) {
  const canvas = h("canvas", { width: SIZE[0], height: SIZE[1], class: "board", role: "img", "aria-label": "Drawing board. With a keyboard alone, choose a file instead." });
  const context = canvas.getContext("2d");
  const strokes = [];
  let colour = COLOURS[0][1];
  let erasing = false;
  let current = null;

  const pens = COLOURS.map(([name, value]) => h("button", { type: "button", class: "compact pen", "aria-pressed": "false", "aria-label": `${name} pen`, title: `${name} pen`, onclick: () => pick(value, false) }, swatch(value)));
  const eraser = h("button", { type: "button", class: "compact", "aria-pressed": "false", onclick: () => pick(colour, true) }, "Eraser");
  const width = h("input", { type: "range", min: "1", max: "40", value: "5", "aria-label": "Width of the pen" });
  const undo = h("button", { type: "button", class: "compact", onclick: () => (strokes.pop(), changed()) }, "Undo");
  const clear = h("button", { type: "button", class: "compact", onclick: () => ((strokes.length = 0), changed()) }, "Clear");

  function swatch(value) {
    const node = h("i", { class: "swatch" });
    node.style.setProperty("background", value);
    return node;
  }
  function pick(value, rub) {
    [colour, erasing] = [value, rub];
    pens.forEach((p, i) => p.setAttribute("aria-pressed", String(!rub && COLOURS[i][1] === value)));
    eraser.setAttribute("aria-pressed", String(rub));
  }
  function point(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  }
  function paint(stroke, from = 0) {
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = stroke.colour;
    context.lineWidth = stroke.width;
    if (!from) {
      // A tap. A line of no length is nothing, by the canvas's rules and in newer browsers.
      context.beginPath();
      context.arc(...stroke.points[0], stroke.width / 2, 0, 2 * Math.PI);
      context.fill();
    }
    context.beginPath();
    const points = stroke.points.slice(Math.max(from - 1, 0));
    context.moveTo(...points[0]);
    points.forEach((p) => context.lineTo(...p));
    context.stroke();
  }
  function repaint() {
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    strokes.forEach((s) => paint(s));
  }
  function changed() {
    repaint();
    undo.disabled = clear.disabled = !strokes.length;
    if (!strokes.length) return done(null);
    canvas.toBlob((blob) => done(new File([blob], "drawing.png", { type: "image/png" })), "image/png");
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    current = { colour: erasing ? "#ffffff" : colour, width: Number(width.value) * (erasing ? 3 : 1), points: [point(event)] };
    strokes.push(current);
    paint(current);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!current) return;
    const from = current.points.length;
    const all = event.getCoalescedEvents?.() ?? [];
    (all.length ? all : [event]).forEach((e) => current.points.push(point(e)));
    paint(current, from);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, () => {
      if (!current) return;
      current = null;
      changed();
    });
  }
  pick(colour, false);
  repaint();
  undo.disabled = clear.disabled = true;
  return h("div", { class: "tool stack" }, h("div", { class: "row", role: "toolbar", "aria-label": "Drawing" }, pens, eraser, undo, clear), h("div", { class: "row" }, h("span", { class: "small muted" }, "Width"), width), canvas);
}
