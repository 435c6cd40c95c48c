// A client to try a channel with: connect, call actions, and watch what comes back.

import { fill, h, inline, json } from "./dom.js";
import { Form, labelled } from "./form.js";

/** How many entries the log keeps. */
const MAX_ENTRIES = 500;
const NATIVE = "fc.v1.json";

/** The console of one channel; `close()` ends its connection. */
export class Console {
  #api; #channel; #server; #socket = null; #nextId = 1; #waiting = new Map();
  #inputs = new Map(); #secrets = new Map(); #query = new Map(); #form = null; #action = null;
  #status; #connectButton; #sendButton; #select; #place; #log; #scheme = null; #text = null; #settings; #target;

  /** `server` is the base of URLs, such as `wss://example.com/prefix`. */
  constructor(api, channel, server) {
    this.#api = api;
    this.#channel = channel;
    this.#server = server;
    this.#status = h("p", { class: "status", role: "status" }, "Not connected");
    this.#connectButton = h("button", { type: "submit", class: "primary" }, "Connect");
    this.#sendButton = h("button", { type: "submit", class: "primary", disabled: true }, "Send");
    this.#log = h("div", { class: "log", role: "log", "aria-label": "Messages", tabindex: "0" });
    this.#place = h("div", {});
    this.element = h("div", { class: "console" }, this.#connectionPanel(), this.#requestPanel(), this.#logPanel());
    this.#showStatus("closed", "Not connected");
  }

  /** Show the form of an action, and go there. */
  choose(action) {
    if (this.#select) this.#select.value = action.name;
    this.#show(action);
    const first = this.#place.querySelector("input, textarea, select") ?? this.#select;
    first?.focus({ preventScroll: true });
    this.#place.closest("section").scrollIntoView({ block: "nearest" });
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  // -- the panels ----------------------------------------------------------------------------------------------------

  #connectionPanel() {
    const fields = [];
    for (const { name, description, enum: choices, default: value, examples } of this.#channel.parameters) {
      const control = choices
        ? h("select", {}, choices.map((choice) => h("option", { selected: choice === value }, choice)))
        : h("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false", value: value ?? "", placeholder: examples?.[0] ?? null });
      this.#inputs.set(name, control);
      fields.push(labelled(control, name, { required: true, description }));
    }
    fields.push(...this.#securityFields());
    for (const [name, schema] of Object.entries(this.#channel.channel.bindings?.ws?.query?.properties ?? {})) {
      const control = h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
      this.#query.set(name, control);
      fields.push(labelled(control, `?${name}`, { description: schema.description }));
    }
    const [main, optional] = [fields.slice(0, fields.length - this.#query.size), fields.slice(fields.length - this.#query.size)];
    this.#target = h("p", { class: "target" });
    const more = optional.length ? h("details", { class: "example" }, h("summary", {}, "More"), optional) : null;
    this.#settings = h("div", { class: "fields" }, main, more);
    const submit = (event) => {
      event.preventDefault();
      if (this.#socket) this.#socket.close(1000);
      else this.#connect();
    };
    return h("section", { class: "panel" },
      h("div", { class: "panel-head" }, h("h2", {}, "Connection"), this.#status),
      h("form", { onsubmit: submit }, this.#settings, this.#target, h("div", { class: "buttons" }, this.#connectButton)),
    );
  }

  #securityFields() {
    const schemes = this.#channel.security;
    if (!schemes.length) return [];
    const place = h("div", {});
    const show = (scheme) => {
      this.#scheme = scheme;
      const able = scheme && usable(scheme);
      const control = able ? h("input", { type: "password", autocomplete: "off", spellcheck: "false" }) : null;
      if (control) this.#secrets.set(scheme.name, control);
      fill(place, scheme && (control
        ? labelled(control, secretName(scheme), { description: scheme.description })
        : h("p", { class: "hint" }, inline(scheme.description ?? ""), " ", limitation(scheme))));
    };
    const options = [h("option", { value: "" }, "None"), schemes.map(({ name }) => h("option", { value: name }, name))];
    const select = h("select", { onchange: () => show(schemes.find(({ name }) => name === select.value) ?? null) }, options);
    const start = schemes.find(usable);
    select.value = start?.name ?? "";
    show(start ?? null);
    return [labelled(select, "Authentication"), place];
  }

  #requestPanel() {
    const submit = (event) => {
      event.preventDefault();
      this.#send();
    };
    const send = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
    };
    let head;
    if (this.#channel.isRaw) {
      this.#text = h("textarea", { rows: "3", spellcheck: "false" });
      head = null;
      this.#place.append(labelled(this.#text, "Text"));
    } else {
      const groups = [["Actions", false], ["Built in", true]].map(([label, builtIn]) => {
        const actions = this.#channel.actions.filter((action) => action.isBuiltIn === builtIn);
        return actions.length ? h("optgroup", { label }, actions.map(({ name }) => h("option", { value: name }, name))) : null;
      });
      this.#select = h("select", { onchange: () => this.#show(this.#channel.actions.find(({ name }) => name === this.#select.value)) }, groups);
      head = labelled(this.#select, "Action");
      this.#show(this.#channel.actions[0]);
    }
    return h("section", { class: "panel" },
      h("h2", {}, this.#channel.isRaw ? "Send" : "Request"),
      h("form", { onsubmit: submit, onkeydown: send, novalidate: true }, head, this.#place,
        h("div", { class: "buttons" }, this.#sendButton, h("span", { class: "hint keys" }, h("kbd", {}, "Ctrl"), " + ", h("kbd", {}, "Enter")))),
    );
  }

  #logPanel() {
    const clear = h("button", { type: "button", class: "link", onclick: () => this.#log.replaceChildren() }, "Clear");
    return h("section", { class: "panel log-panel" }, h("div", { class: "panel-head" }, h("h2", {}, "Messages"), clear), this.#log);
  }

  #show(action) {
    this.#action = action;
    this.#form = new Form(this.#api, action.data, { required: action.isDataRequired, whole: !action.isNative });
    fill(this.#place, action.summary && h("p", { class: "hint" }, inline(action.summary)), this.#form.element);
  }

  // -- the connection ------------------------------------------------------------------------------------------------

  #connect() {
    let url;
    try {
      url = this.#url();
    } catch (error) {
      this.#note(error.message, "bad");
      return;
    }
    const secret = this.#scheme ? (this.#secrets.get(this.#scheme.name)?.value ?? "") : "";
    let socket;
    try {
      socket = new WebSocket(url, this.#protocols(secret));
    } catch (error) {
      this.#note(`The browser refused: ${error.message}`, "bad");
      return;
    }
    this.#socket = socket;
    this.#waiting.clear();
    this.#target.textContent = `${this.#server.replace(/\/$/, "")}${new URL(url).pathname}`;
    this.#showStatus("wait", "Connecting…");
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      this.#showStatus("open", "Connected");
      this.#note("Connected");
      if (this.#scheme?.["x-first-message"] && secret) this.#request("authenticate", { token: secret }, { token: "…" });
    });
    socket.addEventListener("message", ({ data }) => this.#receive(data));
    socket.addEventListener("close", ({ code, reason }) => {
      if (this.#socket === socket) this.#socket = null;
      this.#waiting.clear();
      this.#showStatus("closed", "Not connected");
      const why = `${code}${reason ? ` ${reason}` : ""}`;
      this.#note(opened ? `Closed: ${why}` : `The handshake was refused, or nobody is there (${why})`, code === 1000 ? "" : "bad");
    });
  }

  #url() {
    const path = this.#channel.address.replace(/\{([^}]+)\}/g, (whole, name) => {
      const value = this.#inputs.get(name)?.value ?? "";
      if (value === "") throw new Error(`Please give ${name}.`);
      return encodeURIComponent(value);
    });
    const url = new URL(this.#server.replace(/\/$/, "") + path);
    for (const [name, control] of this.#query) if (control.value) url.searchParams.set(name, control.value);
    const scheme = this.#scheme;
    const secret = scheme ? this.#secrets.get(scheme.name)?.value : "";
    if (secret && scheme.type === "httpApiKey" && scheme.in === "query") url.searchParams.set(scheme.parameter, secret);
    return url.href;
  }

  #protocols(secret) {
    const known = this.#channel.channel.bindings?.ws?.headers?.properties?.["Sec-WebSocket-Protocol"]?.enum ?? [];
    const offers = known.includes(NATIVE) ? [NATIVE] : [];
    const prefix = this.#scheme?.["x-subprotocol"];
    if (!secret || !prefix) return offers;
    // What a subprotocol may be made of: RFC 9110, section 5.6.2.
    const plain = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(secret);
    return [...(offers.length ? offers : ["bearer"]), plain ? prefix + secret : `bearer64.${base64url(secret)}`];
  }

  #send() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (this.#text) {
      this.#socket.send(this.#text.value);
      this.#entry("→", "sent", "text", this.#text.value, "sent");
      return;
    }
    let value;
    try {
      value = this.#form.value();
    } catch (error) {
      return; // The field says itself what is wrong.
    }
    if (this.#action.isNative) this.#request(this.#action.name, value);
    else this.#transmit(value, this.#action.name, value?.request_id);
  }

  #request(action, data, shown = data) {
    const request_id = this.#nextId++;
    const whole = (content) => ({ action, request_id, ...(content === undefined ? {} : { data: content }) });
    this.#transmit(whole(data), action, request_id, whole(shown));
  }

  #transmit(message, title, id, shown = message) {
    this.#socket.send(JSON.stringify(message));
    const entry = this.#entry("→", title, id === undefined ? "" : `#${id}`, shown, "sent");
    if (id !== undefined) {
      const answers = h("div", { class: "answers" }, h("div", { class: "answer pending" }, "waiting for the answer…"));
      this.#keepingUp(() => entry.append(answers));
      this.#waiting.set(id, answers);
      while (this.#waiting.size > MAX_ENTRIES) this.#waiting.delete(this.#waiting.keys().next().value);
    }
  }

  #receive(data) {
    if (typeof data !== "string") {
      this.#entry("←", "bytes", `${data.size} bytes`, null, "event");
      return;
    }
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      this.#entry("←", "text", "", data, "event");
      return;
    }
    const answers = message?.request_id === undefined ? undefined : this.#waiting.get(message.request_id);
    if (answers && message.type !== "event") {
      this.#answer(answers, message);
    } else if (message?.type === "event") {
      const offset = message.offset === undefined ? "" : ` · ${message.offset}`;
      this.#entry("←", message.event, `${message.group ?? "to you"}${offset}`, message.data, "event");
    } else {
      const isError = message?.type === "error" || message?.status === "error";
      this.#entry("←", message?.type ?? "message", message?.error?.code ?? message?.group ?? "", message, isError ? "bad" : "notice");
    }
  }

  #answer(answers, message) {
    const { status, error, request_id } = message;
    const isError = status === "error" || Boolean(error);
    const told = isError ? `${error?.code ?? "error"}` : (status ?? "answer");
    const content = isError ? (error ?? message) : "data" in message ? message.data : message;
    this.#keepingUp(() => {
      answers.querySelector(".pending")?.remove();
      answers.append(h("div", { class: `answer ${isError ? "bad" : "good"}` },
        h("p", { class: "entry-head" }, h("span", { class: "arrow" }, "←"), h("strong", {}, told), h("time", {}, now())), body(content)));
      // A streaming reply may be endless.
      while (answers.children.length > MAX_ENTRIES) answers.firstElementChild.remove();
    });
    if (status !== "partial") this.#waiting.delete(request_id);
  }

  // -- the log -------------------------------------------------------------------------------------------------------

  #entry(arrow, title, detail, content, kind) {
    const head = h("p", { class: "entry-head" }, h("span", { class: "arrow" }, arrow), h("strong", {}, title), h("span", { class: "detail" }, detail), h("time", {}, now()));
    const entry = h("div", { class: `entry ${kind}` }, head, body(content));
    this.#keepingUp(() => this.#log.append(entry));
    return entry;
  }

  #note(text, kind = "") {
    this.#keepingUp(() => this.#log.append(h("div", { class: `entry note ${kind}` }, h("p", { class: "entry-head" }, h("span", {}, text), h("time", {}, now())))));
  }

  /** Change the log. Who reads its end goes on doing so; who reads above is left alone. */
  #keepingUp(change) {
    const log = this.#log;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    change();
    while (log.children.length > MAX_ENTRIES) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  #showStatus(state, text) {
    this.#status.dataset.state = state;
    this.#status.textContent = text;
    const isOpen = state === "open";
    this.#sendButton.disabled = !isOpen;
    this.#connectButton.textContent = state === "closed" ? "Connect" : isOpen ? "Disconnect" : "Cancel";
    this.#connectButton.classList.toggle("primary", state === "closed");
    // What it was connected with says the address; the fields would only take the place of messages.
    this.#settings.hidden = state !== "closed";
    if (state === "closed") this.#target.textContent = "";
  }
}

function body(content) {
  if (content === undefined || content === null) return null;
  return typeof content === "string" ? h("pre", { class: "code", tabindex: "0" }, JSON.stringify(content)) : json(content);
}

const now = () => new Date().toLocaleTimeString();

/** Whether a page can show this credential by itself: browsers send no headers of one's own with a handshake. */
function usable(scheme) {
  return Boolean(scheme["x-subprotocol"] || scheme["x-first-message"] || (scheme.type === "httpApiKey" && scheme.in === "query"));
}

function limitation(scheme) {
  if (scheme.in === "cookie") return "The browser sends the cookie by itself, if it has it.";
  return "A page cannot send this: browsers let nobody add headers to a handshake.";
}

function secretName(scheme) {
  return scheme.type === "httpApiKey" ? scheme.parameter : "Token";
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
