// `/docs`: every path of the box, read from /openapi.json, models first. To try one, a model's page
// has a form; every path here has a line for the terminal that sends what is required and no more.

import { json, ROOT } from "./api.js";
import { h, say } from "./dom.js";

const METHODS = ["get", "post", "put", "delete", "x-query"];
const FIRST = ["Models", "Predictions", "Operations"];
const COMPONENT = /^#\/components\/schemas\//;

/** The view. */
export function reference() {
  const ending = new AbortController();
  const groups = h("div", { class: "stack" }, h("p", { class: "muted" }, "Loading …"));
  const count = h("span", { class: "small muted", role: "status" });
  const search = h("input", { type: "search", id: "find", placeholder: "predictions", oninput: filter });
  const node = [
    h("div", { class: "stack tight" }, h("h1", {}, "API"), h("p", { class: "lead" }, "Every path of this box. ", h("a", { href: new URL("openapi.json", ROOT).href, target: "_blank", rel: "noopener" }, "openapi.json"), " says the same to programs.")),
    h("div", { class: "row" }, h("label", { for: "find" }, "Find"), h("div", { class: "find" }, search), count),
    groups,
  ];
  load();
  async function load() {
    try {
      const document_ = await json("/openapi.json", { signal: ending.signal });
      groups.replaceChildren(...grouped(document_));
      filter();
    } catch (error) {
      if (!ending.signal.aborted) groups.replaceChildren(h("div", { class: "notice bad" }, error.message));
    }
  }
  function filter() {
    const wanted = search.value.trim().toLowerCase();
    const all = [...groups.querySelectorAll(".operation")];
    all.forEach((one) => (one.hidden = !one.dataset.text.includes(wanted)));
    groups.querySelectorAll(":scope > section").forEach((s) => (s.hidden = !s.querySelector(".operation:not([hidden])")));
    say(count, `${all.filter((one) => !one.hidden).length} of ${all.length}`);
  }
  return { node, title: `API · ${location.host}`, end: () => ending.abort() };
}

function grouped(openapi) {
  const tags = new Map(FIRST.map((tag) => [tag, []]));
  for (const [path, operations] of Object.entries(openapi.paths)) {
    for (const method of METHODS) {
      const operation = operations[method];
      if (!operation) continue;
      const tag = operation.tags?.[0] ?? "Other";
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push(one(openapi, path, method.replace("x-", "").toUpperCase(), operation));
    }
  }
  return [...tags].filter(([, list]) => list.length).map(([tag, list]) => h("section", { class: "card" }, h("h2", {}, tag), h("div", {}, list)));
}

function one(openapi, path, method, operation) {
  const node = h(
    "details",
    { class: "operation", ontoggle: fill, "data-text": `${method} ${path} ${operation.summary}`.toLowerCase() },
    h("summary", {}, h("span", { class: `method ${method.toLowerCase()}` }, method), h("code", {}, path), h("span", { class: "small muted" }, operation.summary)),
  );
  function fill() {
    if (!node.open || node.children.length > 1) return;
    const [type, schema] = bodyOf(openapi, operation);
    const parameters = (operation.parameters ?? []).map((p) => ({ name: p.name, where: p.in, required: p.required, schema: resolve(openapi, p.schema ?? {}) }));
    const fields = fieldsOf(openapi, schema);
    const answers = Object.entries(operation.responses ?? {}).map(([status, r]) => `${status}: ${r.description}`);
    const model = method === "POST" && operation.tags?.[0] === "Models" ? path.slice(1) : "";
    node.append(
      h(
        "div",
        { class: "stack inside" },
        operation.security ? h("p", { class: "small muted" }, "Needs a key where the box has keys.") : null,
        parameters.length ? table("In the address", parameters) : null,
        fields.length ? table(`In the body (${type})`, fields) : null,
        h("pre", { tabindex: "0", "aria-label": `curl for ${method} ${path}` }, curl(path, method, operation, type, fields)),
        h("p", { class: "small muted" }, `Answers: ${answers.join("; ")}.`),
        model ? h("p", {}, h("a", { href: new URL(`models/${model}`, ROOT).href }, "Try it on the model's page")) : null,
      ),
    );
  }
  return node;
}

function bodyOf(openapi, operation) {
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? ["", {}];
  return [type, resolve(openapi, content.schema ?? {})];
}

function resolve(openapi, schema) {
  let whole = schema;
  for (const part of [schema, ...(schema.allOf ?? [])]) {
    if (part.$ref) whole = { ...openapi.components.schemas[part.$ref.replace(COMPONENT, "")], ...whole };
  }
  return whole;
}

function fieldsOf(openapi, schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {})
    .map(([name, raw]) => ({ name, required: required.has(name), schema: resolve(openapi, raw) }))
    .sort((a, b) => (a.schema["x-order"] ?? 0) - (b.schema["x-order"] ?? 0));
}

function table(title, fields) {
  const range = ({ minimum, maximum, enum: choices }) => (choices ? `one of ${choices.join(", ")}` : [minimum === undefined ? "" : `from ${minimum}`, maximum === undefined ? "" : `to ${maximum}`].filter(Boolean).join(" "));
  const type = (s) => (["binary", "uri"].includes(s.format) ? "file" : s.type === "array" ? `list of ${type(s.items ?? {})}` : (s.type ?? "any"));
  const rows = fields.map(({ name, required, schema }) => h("tr", {}, h("td", {}, h("code", {}, name), required ? " required" : ""), h("td", {}, [type(schema), range(schema)].filter(Boolean).join(", ")), h("td", {}, schema.default === undefined ? "" : JSON.stringify(schema.default).slice(0, 80)), h("td", {}, schema.description ?? "")));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", {}, h("caption", {}, title), h("thead", {}, h("tr", {}, ["Name", "Type", "Default", "Meaning"].map((c) => h("th", { scope: "col" }, c)))), h("tbody", {}, rows)));
}

function curl(path, method, operation, type, fields) {
  const lines = [`curl -sS${method === "GET" ? "" : ` -X ${method}`} '${ROOT.href.replace(/\/$/, "")}${path}'`];
  if (operation.security) lines.push(`-H "Authorization: Bearer $CALLME_KEY"`);
  const sample = ({ name, schema }) => schema.default ?? schema.enum?.[0] ?? (["integer", "number"].includes(schema.type) ? (schema.minimum ?? 1) : schema.type === "object" ? {} : `<${name}>`);
  const wanted = fields.filter((f) => f.required);
  if (type === "multipart/form-data") {
    wanted.forEach((f) => lines.push(["binary", "uri"].includes(f.schema.format) ? `-F ${f.name}=@FILE` : `-F '${f.name}=${sample(f)}'`));
  } else if (type) {
    const inputs = fields.some((f) => f.name === "input") ? { input: {} } : {};
    lines.push(`-H 'Content-Type: ${type}' -d '${JSON.stringify({ ...inputs, ...Object.fromEntries(wanted.map((f) => [f.name, sample(f)])) })}'`);
  }
  return lines.join(" \\\n  ");
}
