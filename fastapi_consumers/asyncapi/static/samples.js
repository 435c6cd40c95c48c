// Values that fit a schema, and schemas in a few words.

const FORMATS = {
  "date-time": () => new Date().toISOString(),
  date: () => new Date().toISOString().slice(0, 10),
  time: () => "12:00:00",
  duration: () => "PT1M",
  uuid: () => "3fa85f64-5717-4562-b3fc-2c963f66afa6",
  email: () => "ann@example.com",
  uri: () => "https://example.com/",
  ipv4: () => "192.0.2.1",
  ipv6: () => "2001:db8::1",
};

/** A value to begin with. Optional properties are left out of it where `lean` is set. */
export function sample(api, schema, lean = false, depth = 0) {
  const found = api.resolve(schema);
  if (found.examples?.length) return found.examples[0];
  if ("default" in found) return found.default;
  if ("const" in found) return found.const;
  if (found.enum) return found.enum[0];
  if (depth > 6) return null;
  if (found.allOf) return merged(api, found, lean, depth);
  const choice = (found.oneOf ?? found.anyOf)?.find((entry) => api.resolve(entry).type !== "null");
  if (choice) return sample(api, choice, lean, depth + 1);
  switch (typeOf(found)) {
    case "object": {
      const required = found.required ?? [];
      const entries = Object.entries(found.properties ?? {}).filter(([name]) => !lean || required.includes(name));
      return Object.fromEntries(entries.map(([name, property]) => [name, sample(api, property, lean, depth + 1)]));
    }
    case "array":
      if (Array.isArray(found.items)) return found.items.map((item) => sample(api, item, lean, depth + 1));
      return found.minItems || !lean ? [sample(api, found.items ?? {}, lean, depth + 1)] : [];
    case "integer":
    case "number":
      return numberOf(found);
    case "boolean":
      return false;
    case "string":
      return FORMATS[found.format]?.() ?? "text".padEnd(Math.min(found.minLength ?? 0, 200), "x").slice(0, found.maxLength ?? 200);
    default:
      return null;
  }
}

function merged(api, schema, lean, depth) {
  const { allOf, ...rest } = schema;
  const parts = [...allOf, rest].map((part) => sample(api, part, lean, depth + 1));
  const objects = parts.filter((part) => part && typeof part === "object" && !Array.isArray(part));
  return objects.length ? Object.assign({}, ...objects) : parts[0];
}

function numberOf({ minimum, exclusiveMinimum, maximum, exclusiveMaximum, multipleOf }) {
  if (minimum !== undefined) return minimum;
  if (exclusiveMinimum !== undefined) return exclusiveMinimum + (multipleOf ?? 1);
  const largest = maximum ?? (exclusiveMaximum !== undefined ? exclusiveMaximum - (multipleOf ?? 1) : 0);
  return Math.min(0, largest);
}

/** The type that a schema names, or that its keywords let one guess. */
export function typeOf(schema) {
  if (Array.isArray(schema.type)) return schema.type.find((type) => type !== "null");
  return schema.type ?? (schema.properties ? "object" : schema.items ? "array" : undefined);
}

/** A schema without its "or null", and whether it had one. */
export function nullable(api, schema) {
  const found = api.resolve(schema);
  const choices = found.anyOf ?? found.oneOf;
  const others = choices?.filter((entry) => api.resolve(entry).type !== "null");
  if (choices && others.length === 1 && others.length < choices.length) {
    const { anyOf, oneOf, ...rest } = found;
    return [{ ...api.resolve(others[0]), ...rest }, true];
  }
  return [found, false];
}

/** What a schema allows, in a few words: `list of Person`, `integer`, `text or null`. */
export function typeText(api, schema) {
  if (schema?.$ref) {
    const name = decodeURIComponent(schema.$ref.split("/").at(-1));
    if (!name.startsWith("fc.")) return name;
  }
  const found = api.resolve(schema);
  if ("const" in found) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = found.anyOf ?? found.oneOf;
  if (choices) return [...new Set(choices.map((entry) => typeText(api, entry)))].join(" | ");
  if (found.allOf?.length === 1) return typeText(api, found.allOf[0]);
  const type = typeOf(found);
  if (type === "array") {
    return Array.isArray(found.items)
      ? `[${found.items.map((item) => typeText(api, item)).join(", ")}]`
      : `array of ${typeText(api, found.items ?? {})}`;
  }
  if (type === "object" && found.title && found.properties) return found.title;
  const name = type ?? (found.allOf ? "object" : "any");
  return found.format ? `${name} (${found.format})` : name;
}

/** The bounds of a schema, each in a few words. */
export function bounds(found) {
  const told = [];
  const add = (name, text) => found[name] !== undefined && told.push(text(found[name]));
  add("minimum", (value) => `≥ ${value}`);
  add("exclusiveMinimum", (value) => `> ${value}`);
  add("maximum", (value) => `≤ ${value}`);
  add("exclusiveMaximum", (value) => `< ${value}`);
  add("multipleOf", (value) => `a multiple of ${value}`);
  if (found.minLength !== undefined && found.maxLength !== undefined) told.push(`${found.minLength} to ${found.maxLength} characters`);
  else {
    add("minLength", (value) => `at least ${value} characters`);
    add("maxLength", (value) => `at most ${value} characters`);
  }
  add("pattern", (value) => `matches ${value}`);
  add("minItems", (value) => `at least ${value} items`);
  add("maxItems", (value) => `at most ${value} items`);
  add("default", (value) => `default ${JSON.stringify(value)}`);
  return told;
}
