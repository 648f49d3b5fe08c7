// A model's inputs as its own schema says them, and what is wrong with a value. Cog's vocabulary is
// small, so this checks what the box checks; the box has the last word.

const COMPONENT = /^#\/components\/schemas\//;
const MEDIA = [
  ["audio", /audio|speech|voice|sound|recording|music|song/i],
  ["video", /video|movie|clip/i],
  ["image", /image|picture|photo|sketch|drawing|mask|canvas/i],
];

/**
 * The inputs in their order: {name, kind, items, schema, required, secret, fallback, media, members}.
 * `kind`: a type of JSON schema, "file", or "union"; then `members` has one of these for each type.
 */
export function inputsOf(openapi) {
  const components = openapi.components?.schemas ?? {};
  const inputs = components.Input ?? {};
  const required = new Set(inputs.required ?? []);
  return Object.entries(inputs.properties ?? {})
    .map(([name, raw]) => inputOf(name, raw, components, required.has(name)))
    .sort((a, b) => (a.schema["x-order"] ?? 0) - (b.schema["x-order"] ?? 0));
}

function inputOf(name, raw, components, required) {
  let schema = resolve(raw, components);
  const { anyOf, oneOf, ...rest } = schema;
  const given = (anyOf ?? oneOf ?? []).filter((m) => m.type !== "null");
  if (given.length === 1) schema = { ...resolve(given[0], components), ...rest }; // only optional
  if (schema.items) schema.items = resolve(schema.items, components);
  const kind = given.length > 1 ? "union" : kindOf(schema);
  const items = kind === "array" ? kindOf(schema.items ?? { type: "string" }) : null;
  return {
    name,
    kind,
    items,
    schema,
    // What a value is for is said once, whatever type it has.
    members: kind === "union" ? given.map((m) => inputOf(name, { description: rest.description, ...m }, components, required)) : [],
    required,
    secret: Boolean(schema["x-cog-secret"]) || schema.format === "password" || Boolean(schema.items?.["x-cog-secret"]),
    fallback: schema.default,
    media: kind === "file" || items === "file" ? mediaOf(name, schema) : null,
  };
}

const READS = {
  integer: (text) => /^[+-]?\d+$/.test(text),
  number: (text) => text !== "" && Number.isFinite(Number(text)),
  boolean: (text) => /^(true|false)$/i.test(text),
  array: (text) => Array.isArray(parsed(text)),
  object: (text) => isObject(parsed(text)),
};

/** The kind that the box takes a text for, of the kinds of a union: the first that it fits. */
export function readAs(kinds, text) {
  return Object.keys(READS).find((kind) => kinds.includes(kind) && READS[kind](text.trim())) ?? "string";
}

/** The kind of a JSON value. */
export function kindOfValue(value) {
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** A text as JSON; the text itself where it is none. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function resolve(schema, components) {
  const { allOf = [], ...out } = schema;
  let whole = out;
  for (const part of [schema, ...allOf]) {
    if (part.$ref) whole = { ...components[part.$ref.replace(COMPONENT, "")], ...whole };
  }
  delete whole.$ref;
  return whole;
}

function kindOf(schema) {
  if (schema.type === "string" && schema.format === "uri") return "file";
  if (["integer", "number", "boolean", "string", "array"].includes(schema.type)) return schema.type;
  return schema.type === "object" ? "object" : "any";
}

function mediaOf(name, schema) {
  const accept = schema["x-cog-accept"] ?? "";
  const said = [accept, name, schema.description ?? ""].filter(Boolean);
  for (const text of said) {
    const found = MEDIA.find(([, pattern]) => pattern.test(text));
    if (found) return found[0];
  }
  return "any";
}

/** What is wrong with the text of one value, in words; "" when nothing is. */
export function objection(kind, schema, text) {
  if (kind === "integer" || kind === "number") {
    const value = Number(text);
    if (!Number.isFinite(value) || !text.trim()) return "This must be a number.";
    if (kind === "integer" && !/^\s*[-+]?\d+\s*$/.test(text)) return "This must be a whole number.";
    if (schema.minimum !== undefined && value < schema.minimum) return `This must be at least ${schema.minimum}.`;
    if (schema.maximum !== undefined && value > schema.maximum) return `This must be at most ${schema.maximum}.`;
    return "";
  }
  if (kind === "boolean") return READS.boolean(text.trim()) ? "" : "This must be true or false.";
  if (kind === "string") {
    const length = [...text].length;
    if (schema.minLength && length < schema.minLength) return `This needs at least ${schema.minLength} characters; it has ${length}.`;
    if (schema.maxLength && length > schema.maxLength) return `This may have at most ${schema.maxLength} characters; it has ${length}.`;
    if (schema.pattern && !fits(schema.pattern, text)) return `This must look like ${schema.pattern}`;
  }
  if (kind === "object") {
    try {
      const value = JSON.parse(text);
      if (!isObject(value)) return "This must be a JSON object, such as {\"a\": 1}.";
    } catch {
      return 'This is not JSON. Write an object, such as {"a": 1}.';
    }
  }
  return "";
}

function fits(pattern, text) {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    return true; // Python's patterns can say what JavaScript's cannot: the box decides
  }
}
