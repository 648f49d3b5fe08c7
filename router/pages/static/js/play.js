// A model's page: its form on one side, the run and its result on the other. A prediction's own
// address shows the same with what was sent and what came back.

import { ApiError, json, request, ROOT } from "./api.js";
import { announce, confirmed, h, say, seconds } from "./dom.js";
import { makeForm } from "./form.js";
import { watch } from "./live.js";
import { navigate } from "./navigate.js";
import { modelLog, operations } from "./operate.js";
import { badge, setBadge, setProgress } from "./overview.js";
import { showResult } from "./result.js";
import { cancel, follow, isDone, progress, remove, send, state } from "./run.js";
import { inputsOf } from "./schema.js";
import { makeSnippets } from "./snippets.js";
import { keep, kept } from "./stored.js";

// As in app.css: below this, the result is under the form and not beside it.
const NARROW_PX = 900;

/** The page of a model. */
export function modelPage(name) {
  return page(decodeURIComponent(name), null);
}

/** The page of a prediction. */
export function predictionPage(id) {
  return page(null, decodeURIComponent(id));
}

function page(name, id) {
  const node = h("div", { class: "stack" }, h("p", { class: "muted" }, "Loading …"));
  const ending = new AbortController();
  open(node, name, id, ending.signal).catch((error) => {
    if (ending.signal.aborted) return;
    node.replaceChildren(h("h1", {}, name ?? "Prediction"), notice(error), h("p", {}, h("a", { href: ROOT.href }, "All models")));
  });
  return { node, title: `${name ?? "Prediction"} · ${location.host}`, end: () => ending.abort() };
}

/** An error as people read it. */
function notice(error) {
  const lines = [error.message];
  if (error.retryAfter) lines.push(`Try again in ${seconds(error.retryAfter)}.`);
  return h("div", { class: "notice bad", role: "alert" }, lines.map((line) => h("p", {}, line)), error.logTail?.length ? h("pre", { tabindex: "0", role: "region", "aria-label": "What was printed" }, error.logTail.join("\n")) : null);
}

async function open(node, name, id, signal) {
  const made = id ? await state(id, signal) : null;
  const model = name ?? made.model;
  document.title = `${model} · ${location.host}`;
  const path = `/models/${encodeURIComponent(model)}`;
  const [openapi, view, example, files] = await Promise.all([
    json(`${path}/openapi.json`, { signal }),
    json(`${path}/view.json`, { signal }),
    json(`${path}/example.json`, { signal }),
    id ? kept(id) : {},
  ]);
  const specs = inputsOf(openapi);
  const status = badge();
  const about = h("p", { class: "lead" }, view.about ?? "");
  const returned = openapi.components?.schemas?.Output ?? {};
  const order = Object.keys(returned.properties ?? {});
  const isOneText = returned["x-cog-array-display"] === "concatenate";
  const output = runPanel({ specs, view, order, isOneText }, signal);
  const snippets = makeSnippets(model, specs);
  const form = makeForm(specs, view, { run: start, changed: () => snippets.update(form.values()) });
  const load = Object.keys(example).length ? h("button", { type: "button", class: "compact", onclick: useExample }, "Use the example") : null;
  const logs = logPanel(model, signal);
  const operate = operations(model);
  node.replaceChildren(
    h("div", { class: "stack tight" }, h("div", { class: "row spread" }, h("div", { class: "row" }, h("h1", {}, model), status), operate.node), about),
    h("div", { class: "play" }, h("section", { class: "card", "aria-labelledby": "inputs-title" }, h("div", { class: "row spread" }, h("h2", { id: "inputs-title" }, "Inputs"), load), form.node), output.node),
    h("section", { class: "card", "aria-labelledby": "code-title" }, h("h2", { id: "code-title" }, "The same from code"), snippets.node),
    logs,
  );
  about.hidden = !about.textContent;
  snippets.update(form.values());
  const unwatch = watch(({ status: box }) => {
    const now = box?.models[model];
    status.hidden = !now;
    if (!now) return;
    setBadge(status, now.state);
    operate.update(now);
    output.box(now);
    logs.hidden = now.queue === undefined;
  });
  signal.addEventListener("abort", unwatch);
  const onPaste = (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (!pasted.length) return;
    event.preventDefault();
    form.paste(pasted);
  };
  document.addEventListener("paste", onPaste, { signal });
  // Beside a field too: the browser would open the file in place of the page.
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      if (kind === "drop" && event.dataTransfer.files.length) form.paste([...event.dataTransfer.files]);
    }, { signal });
  }

  if (made) {
    const plain = Object.entries(made.input).filter(([n]) => !specs.find((s) => s.name === n && (s.secret || s.media)));
    form.write({ ...Object.fromEntries(plain), ...files });
    if (innerWidth <= NARROW_PX) output.node.scrollIntoView();
    await output.follow(made.id, files, form).catch((error) => !signal.aborted && output.fail(error));
  }

  async function start(values) {
    form.busy(true);
    output.sending();
    if (innerWidth <= NARROW_PX) output.node.scrollIntoView();
    try {
      const p = await send(model, values);
      const sent = Object.fromEntries(Object.entries(values).filter(([, parts]) => parts.some((v) => v instanceof File)));
      await keep(p.id, sent);
      navigate(`predictions/${encodeURIComponent(p.id)}`, { silent: true });
      output.follow(p.id, sent, form).catch((error) => !signal.aborted && output.fail(error));
    } catch (error) {
      const rest = error instanceof ApiError ? form.fail(error.problems) : [];
      output.fail(error.problems?.length && !rest.length ? new Error("Some inputs cannot be used; each says why.") : error);
    } finally {
      form.busy(false);
    }
  }

  async function useExample() {
    const filled = {};
    for (const [input, value] of Object.entries(example)) {
      const isFile = typeof value === "string" && value.startsWith("@");
      filled[input] = isFile ? await sample(path, input, value) : value;
    }
    form.write(filled);
    announce("The example is filled in.");
  }
}

/** What a model objected to: by name where its message quotes an input, as Cog's packages do. */
function problemsOf(failure) {
  if (!failure || failure.code !== "invalid_input") return [];
  if (failure.problems.length) return failure.problems;
  const [, input, message] = /'([^']+)'[^:]*: (.+)/s.exec(failure.message) ?? [];
  return input ? [{ input, message: message.replace(/\.$/, "") }] : [];
}

async function sample(path, input, value) {
  const blob = await (await request(`${path}/example/${encodeURIComponent(input)}`, { headers: { Accept: "*/*" } })).blob();
  return new File([blob], value.split("/").at(-1), { type: blob.type });
}

/** What the model's process prints, for an admin; followed while it is open. */
function logPanel(model, signal) {
  const log = modelLog(model, signal);
  const node = h("details", { class: "card", hidden: true, ontoggle: () => (node.open ? log.follow() : log.stop()) }, h("summary", {}, "Log of the model's process"), log.node);
  signal.addEventListener("abort", log.stop);
  return node;
}

function runPanel(shape, pageSignal) {
  const title = h("h2", { id: "result-title" }, "Result");
  const state = badge();
  const stop = h("button", { type: "button", class: "compact danger", hidden: true, onclick: halt }, "Cancel");
  const trash = confirmed("Delete", "this prediction", erase);
  const bar = h("div", { class: "bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true }, h("i"));
  const text = h("p", { class: "muted small num", role: "status" }, "What the model returns appears here.");
  const preview = h("img", { class: "preview", alt: "How it looks so far", hidden: true });
  const body = h("div", { class: "stack result" });
  const logText = h("pre", { tabindex: "0", "aria-label": "What the run printed" });
  const logs = h("details", { hidden: true }, h("summary", {}, "Log of this run"), logText);
  const node = h("section", { class: "card output", tabindex: "-1", "aria-labelledby": "result-title" }, h("div", { class: "row spread" }, h("div", { class: "row" }, title, state), stop, trash), text, bar, preview, body, logs);
  state.hidden = trash.hidden = true;
  let current = null; // {id, abort}
  let model = {}; // its part of /status

  function halt() {
    if (stop.ariaDisabled) return;
    stop.ariaDisabled = "true"; // disabled, it would lose the focus of the keyboard
    say(text, "Canceling …");
    cancel(current.id).catch((error) => {
      stop.ariaDisabled = null; // it runs on, and may be canceled again
      say(text, "");
      body.replaceChildren(notice(error));
    });
  }
  async function erase() {
    try {
      await remove(current.id);
      navigate("predictions");
    } catch (error) {
      body.prepend(notice(error));
    }
  }
  function reset() {
    current?.abort.abort();
    body.replaceChildren();
    logs.hidden = preview.hidden = state.hidden = trash.hidden = true;
    stop.ariaDisabled = null;
  }
  function show(p) {
    const { share, preview: picture, text: printed } = progress(p.logs ?? "");
    const running = !isDone(p);
    state.hidden = false;
    say(state, p.status === "starting" ? "waiting" : p.status === "processing" ? "running" : p.status);
    state.className = `state ${{ succeeded: "good", failed: "broken", processing: "active", starting: "pending" }[p.status] ?? ""}`;
    if (!running && stop === document.activeElement) node.focus({ preventScroll: true });
    stop.hidden = bar.hidden = !running;
    trash.hidden = running;
    if (running) setProgress(bar, p.status === "processing" ? share : null);
    preview.hidden = !picture || !running;
    if (picture) preview.src = picture;
    logs.hidden = !printed.trim();
    say(logText, printed.slice(-200000));
    say(text, running ? waiting(p, share) : summary(p));
  }
  function waiting(p, share) {
    if (p.status === "processing") {
      const usual = model.service_s ? ` A run takes about ${seconds(model.service_s)}.` : "";
      return share === null ? `Running.${usual}` : `${Math.round(100 * share)} % done.`;
    }
    const place = p.queue ? `Number ${p.queue.position} in the queue, starts in about ${seconds(p.queue.eta_s)}.` : "Waiting.";
    return model.state === "starting" || model.state === "waking" ? `The model is starting. ${place}` : place;
  }
  function summary(p) {
    const ran = p.metrics?.predict_time;
    return { succeeded: `Done${ran ? ` in ${seconds(ran)}` : ""}.`, canceled: "Canceled." }[p.status] ?? "It failed.";
  }

  return {
    node,
    box(now) {
      model = now;
    },
    sending() {
      reset();
      say(text, "Sending …");
      bar.hidden = false;
      setProgress(bar, null);
    },
    fail(error) {
      reset();
      bar.hidden = stop.hidden = true;
      say(text, "");
      body.replaceChildren(notice(error));
    },
    async follow(id, files, form) {
      reset();
      const abort = new AbortController();
      pageSignal.addEventListener("abort", () => abort.abort());
      current = { id, abort };
      let last = null;
      let partial = "";
      for await (const p of follow(id, abort.signal, (error) => say(text, `${error.message} The run goes on; trying again …`))) {
        show(p);
        last = p;
        const soFar = JSON.stringify(p.output);
        if (!isDone(p) && p.output !== null && soFar !== partial) {
          partial = soFar;
          showResult(body, p, { ...shape, files });
        }
      }
      if (!last || abort.signal.aborted) return;
      announce(summary(last));
      if (last.status === "succeeded") return showResult(body, last, { ...shape, files });
      if (last.status !== "failed") return body.replaceChildren();
      form.fail(problemsOf(last.failure));
      body.replaceChildren(notice(last.failure ?? new Error(last.error ?? "It failed.")));
    },
  };
}
