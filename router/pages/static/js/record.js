// Records from the microphone and makes a WAV in the page: 16 bits, one channel, the rate of the
// microphone. No browser's recorder makes a format that every model and every browser reads.

import { ROOT } from "./api.js";
import { h, say, seconds } from "./dom.js";

const MOST_S = 600;
const REASONS = {
  NotAllowedError: "The browser was not allowed to use the microphone. Allow it beside the address, then try again.",
  NotFoundError: "There is no microphone on this machine.",
  NotReadableError: "The microphone is in use by another program.",
};
const INSECURE = "The browser allows the microphone only over https or on this machine (localhost). Choose a file instead.";

/** The recorder. `done(file)` gets each recording. `stop()` of the node ends it without a file. */
export function makeRecorder(done) {
  const level = h("div", { class: "bar level", "aria-hidden": "true" }, h("i"));
  const text = h("p", { class: "small", role: "status" });
  const button = h("button", { type: "button", class: "compact primary", onclick: () => (session ? finish() : begin()) }, "Start");
  const node = h("div", { class: "tool stack recorder" }, h("div", { class: "row" }, button, text), level);
  let session = null;

  async function begin() {
    if (!navigator.mediaDevices || !window.AudioWorklet) return say(text, INSECURE);
    button.disabled = true;
    let stream = null;
    const context = new AudioContext();
    try {
      context.resume(); // inside the click: Safari starts suspended
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false } });
      await context.audioWorklet.addModule(new URL("static/js/record-worklet.js", ROOT));
    } catch (error) {
      stream?.getTracks().forEach((t) => t.stop());
      context.close();
      button.disabled = false;
      return say(text, REASONS[error.name] ?? `Recording does not work here: ${error.message}`);
    }
    const pieces = [];
    const worklet = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    const source = context.createMediaStreamSource(stream);
    source.connect(worklet);
    session = { stream, context, pieces, count: 0 };
    worklet.port.onmessage = ({ data }) => {
      if (!session) return;
      pieces.push(data);
      session.count += data.length;
      const peak = data.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      level.firstChild.style.setProperty("width", `${Math.min(100, 140 * Math.sqrt(peak))}%`);
      const length = session.count / context.sampleRate;
      say(text, `Recording: ${seconds(Math.floor(length))}`);
      if (length >= MOST_S) finish();
    };
    button.disabled = false;
    say(button, "Stop");
  }
  function end() {
    if (!session) return null;
    const ended = session;
    session = null;
    ended.stream.getTracks().forEach((t) => t.stop());
    ended.context.close();
    say(button, "Start");
    level.firstChild.style.setProperty("width", "0");
    return ended;
  }
  function finish() {
    const { pieces, count, context } = end();
    say(text, count ? `Recorded ${seconds(count / context.sampleRate)}.` : "Nothing was heard.");
    if (count) done(new File([wav(pieces, count, context.sampleRate)], "recording.wav", { type: "audio/wav" }));
  }
  node.stop = end;
  node.opened = begin;
  return node;
}

/** A WAV file: `pieces` of floats from -1 to 1, `count` in all, `rate` per second. */
function wav(pieces, count, rate) {
  const buffer = new ArrayBuffer(44 + 2 * count);
  const view = new DataView(buffer);
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const piece of pieces) {
    for (const value of piece) {
      view.setInt16(at, Math.max(-1, Math.min(1, value)) * 0x7fff, true);
      at += 2;
    }
  }
  return new Blob([buffer], { type: "audio/wav" });
}
