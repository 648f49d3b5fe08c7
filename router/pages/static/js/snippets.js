// What the form would send, as code that sends exactly that: curl, Python, JavaScript.

import { ROOT } from "./api.js";
import { h, say } from "./dom.js";
import { objection, parsed, readAs } from "./schema.js";

const OWNER = "box"; // the box accepts any

/** The panel: {node, update(values)}. `values`: {input: [texts and Files]} as the form sends them. */
export function makeSnippets(model, specs) {
  const code = h("pre", { tabindex: "0", "aria-label": "Code" });
  const copied = h("span", { class: "small muted", role: "status" });
  const copy = h("button", { type: "button", class: "compact", onclick: onCopy }, "Copy");
  let values = {};
  let chosen = "curl";
  const makers = { curl: curl, Python: python, JavaScript: javascript, Supabase: supabase };
  const tabs = Object.keys(makers).map((name) => h("button", { type: "button", class: "compact", "aria-pressed": String(name === chosen), onclick: () => choose(name) }, name));
  const kinds = new Map(specs.map((s) => [s.name, s]));

  function choose(name) {
    chosen = name;
    tabs.forEach((t) => t.setAttribute("aria-pressed", String(t.textContent === name)));
    show();
  }
  /** What must be sent and is not in the form, by its name: without it the code would not run. */
  function lacking() {
    const missing = specs.filter((s) => s.required && s.fallback === undefined && !values[s.name]?.length);
    return Object.fromEntries(missing.map((s) => [s.name, [s.kind === "file" || s.items === "file" ? new File([], "FILE") : `<${s.name}>`]]));
  }
  function show() {
    say(code, makers[chosen](model, typed({ ...lacking(), ...values }, kinds)));
    say(copied, "");
  }
  async function onCopy() {
    say(copied, (await copyText(code.textContent)) ? "Copied." : "Select the text and press Ctrl + C.");
  }
  return {
    node: h("div", { class: "stack" }, h("div", { class: "row spread" }, h("div", { class: "row", role: "group", "aria-label": "Language" }, tabs), h("div", { class: "row" }, copied, copy)), code),
    update(now) {
      values = now;
      show();
    },
  };
}

/** {input: {texts, value, secret}}: what goes into a form, and the same as JSON; files are File objects. */
function typed(values, kinds) {
  const convert = (kind, text) => (!text.trim() || objection(kind, {}, text) ? text : kind === "integer" ? BigInt(text.trim()) : kind === "number" ? Number(text) : kind === "boolean" ? text === "true" : kind === "object" ? parsed(text) : text);
  return Object.entries(values).map(([name, parts]) => {
    const spec = ofText(kinds.get(name), parts);
    const shown = spec.secret ? parts.map(() => `<${name}>`) : parts;
    const list = spec.kind === "array";
    const whole = list && shown.length === 1 && typeof shown[0] === "string" && shown[0].startsWith("[");
    const value = whole ? parsed(shown[0]) : list ? shown.map((p) => (p instanceof File ? p : convert(spec.items, p))) : shown[0] instanceof File ? shown[0] : convert(spec.kind, shown[0]);
    return { name, parts: shown, value };
  });
}

/** The input; of a union, the type that the box takes these parts for. */
function ofText(spec, parts) {
  if (spec.kind !== "union") return spec;
  const [part] = parts;
  const kinds = spec.members.map((m) => m.kind);
  const kind = typeof part !== "string" ? "file" : parts.length > 1 ? "array" : readAs(kinds, part);
  return spec.members.find((m) => m.kind === kind) ?? { ...spec.members[0], kind };
}

const base = () => ROOT.href.replace(/\/$/, "");
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

function curl(model, inputs) {
  const lines = [`curl -sS ${base()}/${model}`, `-H "Authorization: Bearer $CALLME_KEY"`];
  for (const { name, parts } of inputs) {
    // -F reads a leading @ or < as a file's name and a semicolon as an option; --form-string does not.
    for (const part of parts) lines.push(part instanceof File ? `-F ${quoted(`${name}=@${part.name}`)}` : `--form-string ${quoted(`${name}=${part}`)}`);
  }
  if (!inputs.length) return [`curl -sS ${base()}/models/${model}/predictions`, lines[1], `-H 'Content-Type: application/json' -d '{"input":{}}'`].join(" \\\n  ");
  return lines.join(" \\\n  ");
}

function literal(value, file, words) {
  if (value instanceof File) return file(value);
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map((v) => literal(v, file, words)).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${literal(v, file, words)}`).join(", ")}}`;
  return words?.get(value) ?? JSON.stringify(value);
}

function python(model, inputs) {
  const names = new Map([[true, "True"], [false, "False"], [null, "None"]]);
  const lines = inputs.map(({ name, value }) => `    ${JSON.stringify(name)}: ${literal(value, (f) => `open(${JSON.stringify(f.name)}, "rb")`, names)},\n`);
  return `# pip install replicate
import os
import replicate

client = replicate.Client(api_token=os.environ["CALLME_KEY"], base_url="${base()}")
output = client.run("${OWNER}/${model}", input={
${lines.join("")}})
print(output)`;
}

function javascript(model, inputs) {
  const lines = inputs.map(({ name, value }) => `    ${JSON.stringify(name)}: ${literal(value, (f) => `await readFile(${JSON.stringify(f.name)})`)},\n`);
  return `// npm install replicate
import { readFile } from "node:fs/promises";
import Replicate from "replicate";

const box = new Replicate({ auth: process.env.CALLME_KEY, baseUrl: "${base()}/v1" });
const output = await box.run("${OWNER}/${model}", {
  input: {
${lines.join("")}  },
});
console.log(output);`;
}

function supabase(model, inputs) {
  const files = inputs.flatMap((i) => i.parts).filter((part) => part instanceof File);
  const named = (file) => `await toDataUri(files[${files.indexOf(file)}])`;
  const lines = inputs.map(({ name, value }) => `    ${JSON.stringify(name)}: ${literal(value, named)},\n`);
  const reader = files.length ? `
// files: what an <input type="file"> or a recorder gives, here ${files.map((f) => f.name).join(", ")}
const toDataUri = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });` : "";
  return `// npm install @supabase/supabase-js; the edge function has the key of this box
import { createClient } from "@supabase/supabase-js";

const supabase = createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY);${reader}
const { data, error } = await supabase.functions.invoke("backend_server", {
  body: {
    endpoint: ${JSON.stringify(model)},
${lines.join("")}  },
});
console.log(error ?? data);`;
}

/** Copy a text; over plain http a browser has no clipboard, but still this old way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { value: text, class: "sr-only" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
