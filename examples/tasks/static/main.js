// The page: rows for the tasks, and requests for what is done to them.

import { List } from "/static/list.js";
import { Connection } from "/static/socket.js";

const STATES = { connecting: "Connecting", open: "Connected", waiting: "Trying again", offline: "Offline" };
const WORDS = {
  string_too_short: "A task needs a text.",
  string_too_long: "That is too long: a task has at most 100 characters.",
};

const $ = (id) => document.getElementById(id);
const name = decodeURIComponent(location.pathname.split("/").at(-1));
const list = new List();
const connection = new Connection(new URL(`/ws/${encodeURIComponent(name)}`, location.href.replace(/^http/, "ws")));
const rows = new Map(); // id → Row
const errors = new Map(); // id → what was wrong with the last change of this task

let shown = [];
let isFirst = true;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** An error in words. What the server says of a field is exact, and for some of it there is a nicer way to say it. */
function explain({ message, details }) {
  if (!Array.isArray(details)) return message;
  return details.map((detail) => WORDS[detail.type] ?? `${detail.message}.`).join(" ");
}

// -- a task -----------------------------------------------------------------------------------------------------------

class Row {
  element = make("li", { draggable: true });
  #id;
  #done = make("input", { type: "checkbox" });
  #text = make("textarea", { rows: 1, enterKeyHint: "done", spellcheck: false });
  #up = make("button", { type: "button", textContent: "↑" });
  #down = make("button", { type: "button", textContent: "↓" });
  #remove = make("button", { type: "button", textContent: "×" });
  #error = make("p", { className: "error" });

  constructor(id) {
    this.#id = id;
    this.#error.setAttribute("role", "alert");
    this.#error.id = `error-${id}`;
    this.#text.setAttribute("aria-describedby", this.#error.id);
    this.#text.setAttribute("aria-label", "Task");
    const check = make("label", { className: "check" }, this.#done);
    this.element.append(check, this.#text, this.#up, this.#down, this.#remove, this.#error);
    this.element.addEventListener("animationend", () => this.element.classList.remove("news"));
    this.#done.addEventListener("change", () => request("check", { id, done: this.#done.checked }));
    this.#text.addEventListener("change", () => this.#rename());
    this.#text.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#text.value = shown.find((task) => task.id === id)?.text ?? "";
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        this.#text.blur();
      }
    });
    this.#up.addEventListener("click", () => this.#move(-1));
    this.#down.addEventListener("click", () => this.#move(1));
    this.#remove.addEventListener("click", () => this.#leave());
    this.element.addEventListener("dragstart", (event) => {
      if (document.activeElement === this.#text) return event.preventDefault(); // it is its text that is selected
      event.dataTransfer.setData("text/plain", id);
      event.dataTransfer.effectAllowed = "move";
    });
    this.element.addEventListener("dragover", (event) => event.preventDefault());
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      place(event.dataTransfer.getData("text/plain"), shown.findIndex((task) => task.id === id));
    });
  }

  #rename() {
    const text = this.#text.value.replace(/\s+/g, " ");
    if (text !== shown.find((task) => task.id === this.#id)?.text) request("rename", { id: this.#id, text });
  }

  #move(by) {
    const button = by < 0 ? this.#up : this.#down;
    place(this.#id, shown.findIndex((task) => task.id === this.#id) + by);
    (button.disabled ? this.#text : button).focus();
  }

  #leave() {
    const index = shown.findIndex((task) => task.id === this.#id);
    request("remove", { id: this.#id });
    (rows.get((shown[index] ?? shown.at(-1))?.id)?.focus ?? (() => $("text").focus()))();
  }

  focus = () => this.#remove.focus();

  flash() {
    this.element.classList.add("news");
  }

  show({ text, done, pending }, index, count) {
    this.element.classList.toggle("pending", pending);
    this.element.classList.toggle("done", done);
    this.element.setAttribute("aria-busy", pending);
    this.#done.checked = done;
    // Who is writing is not disturbed.
    if (document.activeElement !== this.#text) this.#text.value = text;
    this.#up.disabled = index === 0;
    this.#down.disabled = index === count - 1;
    for (const [element, label] of [
      [this.#done, "Done"],
      [this.#up, "Move up"],
      [this.#down, "Move down"],
      [this.#remove, "Remove"],
    ]) element.setAttribute("aria-label", `${label}: ${text}`);
    const error = errors.get(this.#id) ?? "";
    if (this.#error.textContent !== error) this.#error.textContent = error;
    this.#text.setAttribute("aria-invalid", error !== "");
  }
}

/** Put a task where the index says. */
function place(id, index) {
  const others = shown.filter((task) => task.id !== id);
  if (others.length < shown.length) request("move", { id, after: others[index - 1]?.id ?? null });
}

// -- the list ---------------------------------------------------------------------------------------------------------

function request(action, data) {
  errors.delete(data.id);
  connection.request(action, data);
  render();
}

function render() {
  shown = list.show(connection.requests);
  for (const [id, row] of rows) {
    if (!shown.some((task) => task.id === id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  let next = $("tasks").firstChild;
  for (const [index, task] of shown.entries()) {
    if (!rows.has(task.id)) rows.set(task.id, new Row(task.id));
    const row = rows.get(task.id);
    if (row.element === next) next = next.nextSibling;
    else keepFocus(row.element, () => $("tasks").insertBefore(row.element, next));
    row.show(task, index, shown.length);
  }
  const waiting = connection.requests.filter(({ action }) => action !== "read").length;
  $("state").textContent = STATES[connection.state] + (connection.state !== "open" && waiting > 0 ? `, ${waiting} to send` : "");
  $("state").dataset.state = connection.state;
  $("empty").hidden = isFirst || shown.length > 0;
  const open = shown.filter((task) => !task.done).length;
  $("count").textContent = shown.length > 0 ? `${open} of ${shown.length} to do` : "";
}

/** Whatever is moved in the document loses its focus. */
function keepFocus(element, move) {
  const active = element.contains(document.activeElement) ? document.activeElement : null;
  move();
  active?.focus();
}

function reload() {
  list.expect();
  connection.request("read", {}, { first: true });
}

connection.addEventListener("state", render);
connection.addEventListener("recovered", () => {
  $("news").textContent = "You are back. What you missed has been applied.";
});
connection.addEventListener("reload", ({ detail }) => {
  if (detail !== "first") $("news").textContent = "Too much has happened meanwhile. The list was read again.";
  reload();
});
connection.addEventListener("event", ({ detail: { event, data } }) => {
  if (event === "removed") list.remove(data.id);
  const news = event === "changed" ? list.update(data.tasks) : [];
  const own = new Set(connection.requests.map((each) => each.data.id));
  render();
  for (const id of news) if (!own.has(id)) rows.get(id)?.flash();
});
connection.addEventListener("answered", ({ detail: { request, data } }) => {
  if (request.action === "read") list.reset(data);
  else if (request.action === "remove") list.remove(request.data.id);
  else list.update(data);
  if (request.action === "read") isFirst = false;
  render();
});
connection.addEventListener("rejected", ({ detail: { request, error } }) => {
  const text = explain(error);
  if (request.action === "add") {
    $("add-error").textContent = text;
    $("text").setAttribute("aria-invalid", true);
    if ($("text").value === "") $("text").value = request.data.text;
  } else if (error.code === "not_found") {
    $("news").textContent = text;
  } else {
    errors.set(request.data.id, text);
  }
  render();
});

$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  $("add-error").textContent = "";
  $("text").removeAttribute("aria-invalid");
  // `crypto.randomUUID` is not there on pages without TLS.
  const id = "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) =>
    (digit ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (digit / 4)))).toString(16));
  request("add", { id, text: $("text").value });
  $("text").value = "";
  $("text").focus();
});

$("offline").addEventListener("click", () => {
  const isOffline = connection.state !== "offline";
  $("offline").setAttribute("aria-pressed", isOffline);
  $("news").textContent = "";
  if (isOffline) connection.close();
  else connection.open();
});
addEventListener("online", () => connection.state === "waiting" && connection.open());

$("name").textContent = name;
document.title = `${name} · Tasks`;
connection.open();
