// One channel, as people read it.

import { h, inline, json, prose } from "./dom.js";
import { bounds, nullable, sample, typeOf, typeText } from "./samples.js";

/** The reference of a channel. `onTry(action)` is called for the button beside each action. */
export function reference(api, channel, onTry) {
  const { channel: described } = channel;
  const own = channel.actions.filter((action) => !action.isBuiltIn);
  const builtIn = channel.actions.filter((action) => action.isBuiltIn);
  return h("article", {},
    h("header", { class: "channel-head" },
      h("h1", { id: "channel-title", tabindex: "-1" }, channel.title),
      h("p", { class: "address" }, h("span", { class: "method" }, "WS"), h("code", {}, address(channel.address))),
      described.summary && h("p", { class: "lead" }, inline(described.summary)),
      prose(described.description),
      h("ul", { class: "badges", "aria-label": "Tags" }, channel.tags.map((tag) => h("li", { class: "badge" }, tag))),
    ),
    connection(api, channel),
    section("Actions", "What clients may ask.", own.map((action) => actionCard(api, action, onTry))),
    section("Events", "What the server sends by itself.", channel.events.map((event) => eventCard(api, event))),
    section("Built in", "Actions that the framework brings along.", builtIn.map((action) => actionCard(api, action, onTry))),
    section("Notices", "What the framework itself tells clients.", channel.notices.map((notice) => noticeCard(api, notice))),
    section("Frames", "Text or bytes without an envelope.", channel.frames.map((frame) => eventCard(api, frame))),
  );
}

function address(text) {
  return text.split(/(\{[^}]+\})/).map((part) => (part.startsWith("{") ? h("var", {}, part) : part));
}

function section(title, lead, cards) {
  if (!cards.length) return null;
  return h("section", { class: "part" }, h("h2", {}, title, " ", h("span", { class: "count" }, cards.length)), h("p", { class: "hint" }, lead), cards);
}

function connection(api, channel) {
  const { channel: described } = channel;
  const rows = [];
  const row = (name, ...content) => rows.push(h("div", { class: "row" }, h("dt", {}, name), h("dd", {}, content)));
  for (const parameter of channel.parameters) row(h("code", {}, `{${parameter.name}}`), inline(parameter.description ?? ""));
  for (const [name, schema] of Object.entries(described.bindings?.ws?.query?.properties ?? {})) {
    row(h("code", {}, `?${name}=`), inline(schema.description ?? ""));
  }
  const ways = channel.security.map((scheme) => h("p", {}, inline(scheme.description ?? scheme.name)));
  if (ways.length) row("Authentication", ways);
  const protocols = described.bindings?.ws?.headers?.properties?.["Sec-WebSocket-Protocol"]?.enum;
  if (protocols) row("Subprotocols", separated(protocols));
  if (described["x-groups"]?.length) row("Groups", separated(described["x-groups"]));
  const history = described["x-history"];
  if (history) row("History", `${history.size} events${history.ttl ? `, for ${duration(history.ttl)}` : ""}, recovered after a reconnect`);
  if (described["x-max-message-size"]) row("Largest message", size(described["x-max-message-size"]));
  return h("section", { class: "part" }, h("h2", {}, "Connection"), h("dl", { class: "facts" }, rows));
}

const separated = (names) => names.map((name, index) => [index ? ", " : "", h("code", {}, name)]);

const size = (bytes) => (bytes % 1024 === 0 && bytes >= 1024 ? `${bytes / 1024} KiB` : `${bytes} bytes`);

function duration(seconds) {
  for (const [unit, length] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) {
    if (seconds >= 2 * length && seconds % length === 0) return `${seconds / length} ${unit}`;
  }
  return `${seconds} s`;
}

function card(title, flags, summary, body, extra) {
  return h("details", { class: "card", "data-name": title },
    h("summary", {},
      h("span", { class: "card-title" }, h("code", {}, title), flags),
      summary && h("span", { class: "card-summary" }, inline(summary)),
    ),
    h("div", { class: "card-body" }, extra, body),
  );
}

function actionCard(api, action, onTry) {
  const { operation } = action;
  const flags = [
    operation["x-deprecated"] && badge("deprecated", "wait"),
    operation["x-disabled"] && badge("disabled", "bad"),
    operation["x-streams"] && badge("streams"),
    operation["x-concurrent"] && badge("concurrent"),
    operation["x-timeout"] && badge(`timeout ${operation["x-timeout"]} s`),
    (operation["x-rates"] ?? []).map((rate) => badge(rate)),
  ];
  const partial = action.reply("partial");
  const body = [
    prose(operation.description),
    block("Data", action.data, api, "None."),
    partial && block("Each part of the reply", partial, api, ""),
    block(partial ? "The end of the reply" : "Reply", action.reply("ok"), api, "Nothing."),
    h("h3", {}, "Errors"),
    h("dl", { class: "errors" }, action.errors.map(errorRow)),
  ];
  const button = h("button", { type: "button", class: "try", onclick: () => onTry(action) }, "Try it", h("span", { class: "visually-hidden" }, `: ${action.name}`));
  return card(action.name, flags, action.summary, body, button);
}

function errorRow({ code, text, closeCode, isRetryable }) {
  const notes = [isRetryable && "the same request may succeed later", closeCode && `closes, if it does, with ${closeCode}`];
  return h("div", { class: "row" },
    h("dt", {}, h("code", {}, code)),
    h("dd", {}, inline(text), h("span", {}, ` (${notes.filter(Boolean).join("; ")})`)),
  );
}

function eventCard(api, { operation, messages, title }) {
  const payload = api.resolve(messages[0]?.payload);
  const data = payload.properties?.data ?? payload;
  return card(title, [], operation.summary, [prose(operation.description), block("Data", data, api, "Anything.", operation.summary)]);
}

function noticeCard(api, message) {
  const body = block("Message", message.payload, api, "Anything.");
  return card(message.name.replace(/\.notice$/, ""), [], message.summary, body);
}

const badge = (text, kind = "") => h("span", { class: `badge ${kind}` }, text);

/** `told` is the text above it, which the type's description may say once more. */
function block(title, schema, api, nothing, told = "") {
  const found = schema === undefined ? undefined : api.resolve(schema);
  const isNothing = found === undefined || found.type === "null";
  if (isNothing) return [h("h3", {}, title), h("p", { class: "hint" }, nothing || "Nothing.")];
  const example = sample(api, schema);
  return [
    h("h3", {}, title, " ", h("span", { class: "type" }, typeText(api, schema))),
    properties(api, schema, 0, told),
    example !== null && typeof example === "object" && Object.keys(example).length > 0
      && h("details", { class: "example" }, h("summary", {}, "Example"), json(example)),
  ];
}

/** The properties of an object, or of the items of a list of them; deeper ones are shown when they are opened. */
function properties(api, schema, depth = 0, told = "") {
  const found = inner(api, schema);
  const entries = Object.entries(found.properties ?? {});
  const isNew = depth === 0 && found.description && !(told && found.description.startsWith(told));
  const description = isNew ? prose(found.description) : null;
  if (!entries.length) return [description, facts(found)];
  const required = found.required ?? [];
  return [description, h("ul", { class: "properties" }, entries.map(([name, property]) => {
    const [plain] = nullable(api, property);
    const type = typeText(api, property);
    const values = (plain.enum ?? []).map((value) => JSON.stringify(value));
    const deeper = depth < 8 && Object.keys(inner(api, property).properties ?? {}).length > 0;
    return h("li", {},
      h("p", { class: "property" },
        h("code", { class: "name" }, name), required.includes(name) && h("span", { class: "required", title: "required" }, "*"),
        h("span", { class: "type" }, type),
        plain.deprecated && badge("deprecated", "wait"),
      ),
      plain.description && h("div", { class: "hint" }, inline(plain.description)),
      values.length > 0 && !type.includes(values[0]) && h("p", { class: "bounds" }, `one of ${values.join(", ")}`),
      facts(plain),
      deeper && lazily("Properties", () => properties(api, property, depth + 1)),
    );
  }))];
}

function facts(found) {
  const told = bounds(found);
  return told.length ? h("p", { class: "bounds" }, told.join(" · ")) : null;
}

/** What an object's properties are looked for in: the type without null, or the items of a list. */
function inner(api, schema) {
  let [found] = nullable(api, schema);
  for (let steps = 0; steps < 4 && typeOf(found) === "array" && !Array.isArray(found.items); steps++) {
    [found] = nullable(api, found.items ?? {});
  }
  if (found.allOf) return found.allOf.map((part) => inner(api, part)).reduce((one, other) => ({
    ...one, ...other,
    properties: { ...one.properties, ...other.properties },
    required: [...(one.required ?? []), ...(other.required ?? [])],
  }), {});
  return found;
}

/** Made when it is opened for the first time: types may hold themselves. */
function lazily(title, make) {
  const details = h("details", { class: "deeper" }, h("summary", {}, title));
  details.addEventListener("toggle", () => details.append(h("div", {}, make())), { once: true });
  return details;
}
