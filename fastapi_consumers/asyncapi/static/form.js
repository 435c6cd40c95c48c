// A form made of a schema: fields for what is simple, a box of JSON for the rest, and the whole as JSON if one likes.

import { h, inline, newId } from "./dom.js";
import { nullable, sample, typeOf, typeText } from "./samples.js";

/** The fields of what an action takes. `value()` is what they hold; it throws an Error for JSON that is none. */
export class Form {
  #api; #schema; #required; #fields = []; #box = null; #asJson = false; #place;

  /** `schema` may be undefined: then there is nothing to fill in, and the value is undefined too. */
  constructor(api, schema, { required = false, whole = false } = {}) {
    this.#api = api;
    this.#schema = schema;
    this.#required = required;
    this.#place = h("div", { class: "fields" });
    this.element = h("div", { class: "form" });
    if (schema === undefined) {
      this.element.append(h("p", { class: "hint" }, "Takes no data."));
      return;
    }
    this.#asJson = whole || !this.#isObject;
    if (!this.#asJson) {
      const toggle = h("button", { type: "button", class: "link", "aria-pressed": "false", onclick: () => this.#toggle(toggle) }, "Edit as JSON");
      this.element.append(h("div", { class: "form-head" }, h("span", { class: "label" }, "Data"), toggle));
    }
    this.element.append(this.#place);
    this.#show();
  }

  get #isObject() {
    const found = this.#api.resolve(this.#schema);
    return typeOf(found) === "object" && Boolean(found.properties) && !found.anyOf && !found.oneOf && !found.allOf;
  }

  value() {
    if (this.#schema === undefined) return undefined;
    if (this.#asJson) return this.#box.value.trim() === "" && !this.#required ? undefined : parse(this.#box, "Data");
    const entries = this.#fields.map((field) => [field.name, field.value()]).filter(([, value]) => value !== undefined);
    return Object.fromEntries(entries);
  }

  #toggle(button) {
    let value;
    try {
      value = this.value();
    } catch (error) {
      return; // The field says itself what is wrong.
    }
    this.#asJson = !this.#asJson;
    button.setAttribute("aria-pressed", String(this.#asJson));
    button.textContent = this.#asJson ? "Edit as a form" : "Edit as JSON";
    this.#show(value);
  }

  #show(value) {
    this.#place.replaceChildren();
    if (this.#asJson) {
      const start = value === undefined || JSON.stringify(value) === "{}" ? sample(this.#api, this.#schema) : value;
      this.#box = area(JSON.stringify(start, null, 2), "Data");
      this.#place.append(labelled(this.#box, this.#isObject ? "JSON" : typeText(this.#api, this.#schema), { required: this.#required }));
      return;
    }
    const found = this.#api.resolve(this.#schema);
    const required = found.required ?? [];
    this.#fields = Object.entries(found.properties).map(([name, schema]) => new Field(this.#api, name, schema, required.includes(name), value?.[name]));
    this.#place.append(...this.#fields.map((field) => field.element));
    if (!this.#fields.length) this.#place.append(h("p", { class: "hint" }, "Takes an object of any kind; edit it as JSON."));
  }
}

class Field {
  #control; #kind; #required; #canBeNull;

  constructor(api, name, schema, required, value) {
    const [found, canBeNull] = nullable(api, schema);
    this.name = name;
    this.#required = required;
    this.#canBeNull = canBeNull;
    this.#kind = kindOf(found);
    const start = value !== undefined ? value : found.default;
    this.#control = this.#make(api, found, start);
    const type = typeText(api, schema);
    this.element = labelled(this.#control, name, { required, type, description: found.description, inline: this.#kind === "boolean" });
  }

  #make(api, found, start) {
    switch (this.#kind) {
      case "choice": {
        const options = found.enum.map((option) => h("option", { value: JSON.stringify(option), selected: option === start }, String(option)));
        const none = this.#required && !this.#canBeNull ? null : h("option", { value: "", selected: start === undefined || start === null }, "—");
        return h("select", {}, none, options);
      }
      case "boolean":
        if (this.#required && !this.#canBeNull) return h("input", { type: "checkbox", checked: start === true });
        this.#kind = "flag";
        return h("select", {}, ["", "true", "false"].map((text) => h("option", { value: text, selected: String(start ?? "") === text }, text || "—")));
      case "number":
        return h("input", { type: "number", step: typeOf(found) === "integer" ? "1" : "any", value: start ?? null, min: found.minimum, max: found.maximum });
      case "text": {
        const hint = found.format ? String(sample(api, { ...found, default: undefined, type: "string" }) ?? "") : found.examples?.[0];
        const long = (found.maxLength ?? 0) > 1000;
        const attributes = { placeholder: hint ?? null, autocomplete: "off", spellcheck: "false" };
        const control = long ? h("textarea", { rows: "3", ...attributes }) : h("input", { type: "text", ...attributes });
        control.value = start ?? "";
        return control;
      }
      default: {
        const text = start !== undefined ? start : this.#required ? sample(api, found) : undefined;
        return area(text === undefined ? "" : JSON.stringify(text, null, 2), this.name);
      }
    }
  }

  /** Undefined for an optional field that is empty. */
  value() {
    const text = this.#control.value;
    if (this.#kind === "boolean") return this.#control.checked;
    if (text.trim() === "" && !this.#required) return undefined;
    if (text === "" && this.#canBeNull) return null;
    switch (this.#kind) {
      case "choice":
      case "flag":
        return JSON.parse(text);
      case "number":
        // What is no number is the server's to refuse, so that one can see how it does.
        return text === "" ? null : Number(text);
      case "text":
        return text;
      default:
        return parse(this.#control, this.name);
    }
  }
}

function kindOf(schema) {
  if (schema.enum) return "choice";
  if (schema.anyOf || schema.oneOf || schema.allOf || "const" in schema) return "json";
  const type = typeOf(schema);
  if (type === "integer" || type === "number") return "number";
  return { string: "text", boolean: "boolean" }[type] ?? "json";
}

/** A control under its name. */
export function labelled(control, name, { required = false, type = "", description = "", inline: beside = false } = {}) {
  control.id = newId("field");
  const label = h("label", { for: control.id }, name, required && h("span", { class: "required", title: "required" }, " *"));
  const help = description ? h("p", { class: "hint", id: newId("hint") }, inline(description)) : null;
  if (help) control.setAttribute("aria-describedby", help.id);
  if (required) control.setAttribute("aria-required", "true");
  const head = h("div", { class: "field-head" }, beside && control, label, type && h("span", { class: "type" }, type));
  return h("div", { class: "field" }, head, !beside && control, help);
}

function area(text, name) {
  const control = h("textarea", { rows: Math.min(12, Math.max(3, text.split("\n").length)), class: "json-box", spellcheck: "false", "aria-label": name });
  control.value = text;
  control.addEventListener("input", () => control.setCustomValidity(""));
  return control;
}

function parse(control, name) {
  try {
    return JSON.parse(control.value);
  } catch (error) {
    control.setCustomValidity(`This is not JSON: ${error.message}`);
    control.reportValidity();
    control.focus();
    throw new Error(`${name} is not JSON.`);
  }
}
