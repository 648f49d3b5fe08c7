// Intervals along the time, under the waveform of the recording that was sent: tracks
// [{label, items, from, to, text?}] in s. Listening moves a line; a click goes there.

import { h, say, trimmed, words } from "./dom.js";

const RATE = 8000; // Hz, enough for a waveform
const PX_PER_S = 36; // at least, so that short intervals can be seen
const TEXT_PX_PER_S = 80; // so that most words can be read
const TEXT_LINES = 3;
const TEXT_LINE_PX = 22; // as in app.css
const MOST_S = 1200;
const MOST_ITEMS = 1500;

/** `recording`: the File that was sent, or undefined when this browser does not have it. */
export function showTimeline(tracks, recording) {
  const last = Math.max(0.001, ...tracks.flatMap((t) => t.items.map((i) => i[t.to])));
  const pace = tracks.some((t) => t.text) ? TEXT_PX_PER_S : PX_PER_S;
  const canvas = h("canvas", { class: "wave", height: 72, "aria-hidden": "true" });
  const needle = h("i", { class: "needle", hidden: true });
  const strip = h("div", { class: "strip" }, canvas, needle);
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Timeline" }, strip);
  const audio = recording ? h("audio", { src: URL.createObjectURL(recording), controls: true, preload: "metadata", onerror: () => audio.remove() }) : null;
  const place = h("p", { class: "small muted num" });
  const legend = h("ul", { class: "legend" }, tracks.map((t, i) => h("li", {}, h("i", { class: `swatch c${i % 6}` }), `${t.label} (${t.items.length})`)));
  const lanes = tracks.map((track, i) => lane(track, i));
  lanes.forEach((l) => strip.append(l.node));
  let length = last;
  canvas.hidden = true;

  function lane(track, i) {
    const marks = track.items.slice(0, MOST_ITEMS).map((item) => {
      const text = track.text ? String(item[track.text] ?? "") : "";
      const what = `${text || track.label}: ${trimmed(item[track.from])} to ${trimmed(item[track.to])} s`;
      return [item, h("i", { class: `mark c${i % 6}`, title: what }, text ? h("b", { dir: "auto" }, text) : null)];
    });
    return {
      node: h("div", { class: `lane${track.text ? " texts" : ""}`, "aria-hidden": "true" }, marks.map(([, node]) => node)),
      /** Texts that would cover each other stand below each other. */
      stack() {
        if (!track.text || !strip.clientWidth) return;
        const free = new Array(TEXT_LINES).fill(0);
        const scale = strip.clientWidth / length;
        for (const [item, node] of marks) {
          const x = item[track.from] * scale;
          const found = free.findIndex((end) => end <= x);
          const line = found < 0 ? free.indexOf(Math.min(...free)) : found;
          node.style.setProperty("top", `${line * TEXT_LINE_PX}px`);
          free[line] = x + (node.firstChild?.offsetWidth ?? 0) + 6;
        }
      },
      place() {
        for (const [item, node] of marks) {
          node.style.setProperty("left", `${(100 * item[track.from]) / length}%`);
          node.style.setProperty("width", `${(100 * Math.max(item[track.to] - item[track.from], 0)) / length}%`);
        }
      },
    };
  }
  function stretch(duration) {
    length = Math.max(duration, last);
    strip.style.setProperty("min-width", `${Math.round(length * pace)}px`);
    lanes.forEach((l) => (l.place(), l.stack()));
  }
  stretch(last);
  new ResizeObserver(() => lanes.forEach((l) => l.stack())).observe(strip);
  if (audio) {
    audio.addEventListener("timeupdate", () => {
      needle.hidden = false;
      needle.style.setProperty("left", `${(100 * audio.currentTime) / length}%`);
      say(place, `${trimmed(Math.round(audio.currentTime * 10) / 10)} s`);
    });
    strip.addEventListener("click", (event) => {
      const box = strip.getBoundingClientRect();
      audio.currentTime = ((event.clientX - box.left) / box.width) * length;
    });
    drawWave(canvas, recording).then((duration) => {
      if (!duration) return;
      canvas.hidden = false;
      stretch(duration);
    });
  }
  const table = h("details", { ontoggle: fill }, h("summary", {}, "As a table"));
  function fill() {
    if (table.open && table.children.length === 1) table.append(...tracks.map(rows));
  }
  return h("section", { class: "stack part" }, h("h3", {}, "Timeline"), legend, scroll, audio ? h("div", { class: "row" }, audio, place) : null, table);
}

function rows(track) {
  const columns = Object.keys(track.items[0]).slice(0, 6);
  const cell = (v) => (typeof v === "number" ? trimmed(v) : String(v ?? ""));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": track.label }, h("table", {}, h("caption", {}, track.label), h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col" }, words(c))))), h("tbody", {}, track.items.slice(0, 200).map((i) => h("tr", {}, columns.map((c) => h("td", { class: "num", dir: "auto" }, cell(i[c]))))))));
}

/** Draw the recording's waveform; resolves to its length in s, 0 when it cannot be read. */
async function drawWave(canvas, recording) {
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const sound = await context.decodeAudioData(await recording.arrayBuffer());
    if (sound.duration > MOST_S) return 0;
    const samples = sound.getChannelData(0);
    const width = Math.min(8000, Math.max(600, Math.round(sound.duration * PX_PER_S)));
    canvas.width = width;
    const pen = canvas.getContext("2d");
    const middle = canvas.height / 2;
    const loudest = samples.reduce((most, v) => Math.max(most, Math.abs(v)), 0.001);
    pen.fillStyle = getComputedStyle(canvas).color;
    for (let x = 0; x < width; x += 1) {
      const from = Math.floor((x * samples.length) / width);
      const to = Math.max(from + 1, Math.floor(((x + 1) * samples.length) / width));
      let most = 0;
      for (let i = from; i < to; i += 1) most = Math.max(most, Math.abs(samples[i]));
      const half = Math.max(0.5, (most / loudest) * (middle - 2));
      pen.fillRect(x, middle - half, 1, 2 * half);
    }
    return sound.duration;
  } catch {
    return 0;
  }
}
