// The field for a file, or for a list of files: pick, drop, paste, record, draw, photograph.

import { bytes, h, words } from "./dom.js";
import { makeDrawing } from "./draw.js";
import { frame } from "./fields.js";
import { makeRecorder } from "./record.js";

const MOST_BYTES = 25 << 20; // the box's own limit unless it is set otherwise
const URL_LIKE = /^(https?:\/\/|data:)/;

/** The field. `hints`: {draw: [names], record: [names]} of the package's view. */
export function fileField(spec, hints, changed) {
  const many = spec.kind === "array";
  let held = []; // File objects, or URLs as text
  const input = h("input", { type: "file", class: "sr-only", tabindex: "-1", "aria-hidden": "true", multiple: many, accept: spec.media === "any" ? null : `${spec.media}/*`, onchange: () => take([...input.files]) });
  // Some formats have no media type that the browser knows: the accept of a picture would hide them.
  if (spec.media === "image") input.accept = "image/*,.heic,.heif,.avif";
  const shown = h("ul", { class: "stack" });
  const tool = h("div", { hidden: true });
  const choose = h("button", { type: "button", class: "compact", id: `in-${spec.name}`, onclick: () => input.click() }, many ? "Choose files" : "Choose a file");
  const buttons = h("div", { class: "row" }, choose);
  const drop = h("div", { class: "drop stack" }, buttons, h("p", { class: "small muted" }, "or drop or paste it here"), tool, shown, input);
  const field = frame(spec, drop, { labelled: false });
  choose.setAttribute("aria-describedby", `in-${spec.name}-label ${field.describedBy}`);
  drop.setAttribute("role", "group");
  drop.setAttribute("aria-labelledby", `in-${spec.name}-label`);

  const wants = (list, media) => (list ? list.includes(spec.name) : spec.media === media || spec.media === "any");
  if (wants(hints.record, "audio")) addTool("Record", () => makeRecorder((file) => take([file])));
  if (wants(hints.draw, "image")) addTool("Draw", () => makeDrawing((file) => put(file ? [file] : [], false)));
  if (spec.media === "image" && matchMedia("(pointer: coarse)").matches) {
    const camera = h("input", { type: "file", class: "sr-only", tabindex: "-1", "aria-hidden": "true", accept: "image/*", capture: "environment", onchange: () => take([...camera.files]) });
    buttons.append(h("button", { type: "button", class: "compact", onclick: () => camera.click() }, "Take a photo"), camera);
  }

  function addTool(name, make) {
    let made = null;
    const button = h("button", { type: "button", class: "compact", "aria-pressed": "false", onclick: toggle }, name);
    function toggle() {
      const open = button.getAttribute("aria-pressed") !== "true";
      buttons.querySelectorAll("[aria-pressed]").forEach((b) => b.setAttribute("aria-pressed", "false"));
      button.setAttribute("aria-pressed", String(open));
      tool.firstChild?.stop?.();
      tool.replaceChildren();
      tool.hidden = !open;
      if (open) tool.append((made = make()));
      if (open) made.opened?.();
    }
    buttons.append(button);
  }
  function take(files) {
    if (!files.length) return;
    tool.firstChild?.stop?.();
    put(many ? [...held, ...files] : files.slice(0, 1), true);
  }
  function put(files, preview) {
    held = files;
    field.fail(api.problem());
    shown.replaceChildren(...held.map((file, i) => item(file, preview, () => put(held.filter((_, j) => j !== i), true))));
    input.value = "";
    changed();
  }
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });

  const api = {
    name: spec.name,
    node: field.node,
    media: spec.media,
    fail: field.fail,
    take,
    focus: () => choose.focus(),
    read: () => held,
    /** Accepts a File, a URL, a list of them; a bare name is a file that is not here any more. */
    write(value) {
      const items = [value].flat().filter((v) => v instanceof File || URL_LIKE.test(v));
      put(items, true);
    },
    problem() {
      if (spec.required && !held.length) return "This is required.";
      const large = held.find((f) => f.size > MOST_BYTES);
      return large ? `${large.name} has ${bytes(large.size)}; the box takes ${bytes(MOST_BYTES)} in all.` : "";
    },
  };
  return api;
}

function item(file, preview, remove) {
  const name = file.name ?? `${file.slice(0, 60)}${file.length > 60 ? "…" : ""}`;
  const url = file instanceof File ? URL.createObjectURL(file) : null;
  const node = h("li", { class: "chosen" }, preview && url ? previewOf(file, url) : null, h("div", { class: "row spread" }, h("span", { class: "small" }, name, url ? h("span", { class: "muted" }, ` · ${bytes(file.size)}`) : null), h("button", { type: "button", class: "compact quiet", "aria-label": `Remove ${words(name)}`, onclick: () => (url && URL.revokeObjectURL(url), remove()) }, "Remove")));
  return node;
}

function previewOf(file, url) {
  const hide = (event) => event.target.remove(); // a format that this browser does not show
  if (file.type.startsWith("image/")) return h("img", { src: url, alt: `Your file ${file.name}`, class: "thumb", onerror: hide });
  if (file.type.startsWith("audio/")) return h("audio", { src: url, controls: true, onerror: hide });
  if (file.type.startsWith("video/")) return h("video", { src: url, controls: true, class: "thumb", onerror: hide });
  return null;
}
