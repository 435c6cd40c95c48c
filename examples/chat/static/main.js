// The page: a door where one gives a name, and three rooms of which one is in at most one. Whatever people write goes
// into the document as text, never as HTML.

import { CallError, Connection } from "./connection.js";

const LOG_LENGTH = 200;
const FRAMES_LENGTH = 40;

const ROOMS = {
  relay: {
    title: "Relay",
    about: "What you send reaches everybody here exactly as you sent it. The server adds nothing, not even your name.",
    raw: true,
  },
  two: {
    title: "For two",
    about: "Two people, one counter, and some things that go wrong on purpose.",
    say: "say",
    actions: [
      { action: "count", label: "Count up", hint: "rate-limited" },
      { action: "wave", label: "Wave", hint: "deprecated" },
      { action: "shout", label: "Shout", hint: "switched off", data: { text: "Hey!" } },
      { action: "clear", label: "Clear", hint: "forbidden" },
      { action: "fail", label: "Order tea", hint: "fails" },
      { action: "close", label: "Leave", hint: "closes" },
    ],
  },
  group: {
    title: "Group",
    about: "Everybody is welcome, and everybody hears who comes and goes.",
    say: "message",
    actions: [
      { action: "grumble", label: "Grumble", hint: "error, stays" },
      { action: "misbehave", label: "Misbehave", hint: "error, closes" },
    ],
  },
};

const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

let name = sessionStorage.getItem("name");
let room = null; // the key of the room one is in
let connection = null;
let you = null; // {id, name}, as the server knows this visitor
let cameBefore = false; // into this room, by this connection
const logs = new Map(); // room → its list of what was said
const drafts = new Map(); // room → what was written and not sent

// -- the door --------------------------------------------------------------------------------------------------------

function showDoor(problem = "") {
  leave();
  $("house").hidden = $("state").hidden = $("rename").hidden = true;
  $("door").hidden = false;
  $("name").value = name ?? "";
  showNameProblem(problem);
  document.title = "Three rooms";
  $("name").focus();
}

function showNameProblem(problem) {
  $("name-error").textContent = problem;
  $("name").setAttribute("aria-invalid", String(problem !== ""));
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = $("name").value.trim();
  if (chosen === "") {
    showNameProblem("Please give a name: 1 to 30 characters.");
    $("name").focus();
    return;
  }
  name = chosen;
  sessionStorage.setItem("name", name);
  showNameProblem("");
  showHouse();
});

$("name").addEventListener("input", () => showNameProblem(""));
$("rename").addEventListener("click", () => showDoor());

function showHouse() {
  $("door").hidden = true;
  $("house").hidden = $("state").hidden = $("rename").hidden = false;
  $("my-name").textContent = name;
  enter(roomOfAddress());
}

function roomOfAddress() {
  const key = location.hash.slice(1);
  return Object.hasOwn(ROOMS, key) ? key : "relay";
}

window.addEventListener("hashchange", () => {
  if (!$("house").hidden) enter(roomOfAddress());
});

// -- entering and leaving a room -------------------------------------------------------------------------------------

function leave() {
  if (room !== null) drafts.set(room, $("text").value);
  connection?.close();
  connection = null;
  room = null;
}

function enter(key) {
  leave();
  room = key;
  const { title, about, actions = [] } = ROOMS[key];
  document.title = `${title} – Three rooms`;
  $("title").textContent = title;
  $("about").textContent = about;
  $("text-label").textContent = `Message to ${title}`;
  $("text").value = drafts.get(key) ?? "";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${key}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  showLog();
  showActions(actions);
  $("title").focus({ preventScroll: true });
  connect();
}

function connect() {
  const { raw = false } = ROOMS[room];
  const url = new URL(`/ws/${room}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  if (!raw) url.searchParams.set("name", name);
  you = null;
  cameBefore = false;
  showPeople([]);
  notify();
  showBanner();
  connection = new Connection(url, raw ? { raw } : { greeting: "welcome", heartbeat: "who" });
  connection.addEventListener("state", ({ detail }) => showState(detail));
  connection.addEventListener("event", ({ detail }) => handle(detail.event, detail.data));
  connection.addEventListener("text", ({ detail }) => addRelayed(detail));
  connection.addEventListener("frame", ({ detail }) => addFrame(detail));
  connection.open();
}

// -- the state of the connection -------------------------------------------------------------------------------------

function showState({ state, code, reason, error }) {
  const full = reason === "group_full";
  const { label, text, button } = {
    connecting: () => ({ label: cameBefore || $("banner-text").textContent ? "Reconnecting…" : "Connecting…" }),
    open: () => ({ label: "Connected" }),
    waiting: () => ({
      label: navigator.onLine ? "Reconnecting…" : "Offline",
      text: full
        ? "Your place is taken at the moment. Trying again."
        : cameBefore
          ? "The connection was lost. Trying to get you back in; what you write is kept."
          : "The server cannot be reached. Trying again.",
      button: "Try now",
    }),
    closed: () =>
      full
        ? {
            label: "Room full",
            text: "This room is full: two people are in it already. Try again when one of them has left.",
            button: "Try again",
          }
        : { label: "Disconnected", text: error?.message ?? "You have left the room.", button: "Come back in" },
  }[state]();

  if (state === "closed" && (code === 4400 || code === 4401) && !cameBefore) {
    showDoor(error?.message ?? "The server did not accept this name.");
    return;
  }
  $("state").textContent = label;
  $("state").dataset.state = state;
  for (const button of [$("send"), ...$("actions").querySelectorAll("button")]) {
    button.setAttribute("aria-disabled", String(state !== "open"));
  }
  if (state === "open") {
    if (cameBefore) addLine("note", "You are back. What was said meanwhile has passed you by.");
    else if (!ROOMS[room].raw) addLine("note", "You are in, as ", make("bdi", {}, name), ".");
    cameBefore = true;
    showBanner();
    // With a keyboard at hand one wants to write; on a phone the keyboard would cover half of the room.
    if (document.activeElement === $("title") && matchMedia("(pointer: fine)").matches) $("text").focus();
  } else if (text !== undefined) {
    if ($("banner-text").textContent === "") notify();
    if (cameBefore && state === "waiting" && $("banner-text").textContent === "") addLine("note", "Connection lost.");
    showPeople([]);
    showBanner(text, button);
  }
}

function showBanner(text = "", button = "") {
  const hadFocus = document.activeElement === $("again");
  if ($("banner-text").textContent !== text) $("banner-text").textContent = text;
  $("again").textContent = button;
  $("banner").hidden = text === "";
  if (hadFocus && text === "") $("text").focus();
}

$("again").addEventListener("click", () => {
  if (connection.state === "waiting") connection.wake();
  else if (connection.state === "closed") connect();
});

window.addEventListener("online", () => connection?.wake());
window.addEventListener("offline", () => connection?.drop());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && connection?.wake());

// -- what the server says --------------------------------------------------------------------------------------------

function handle(event, data) {
  if (event === "welcome") you = data.you;
  if (data?.people !== undefined) showPeople(data.people);
  if (data?.counter !== undefined) showCounter(data.counter);
  if (event === "joined") addLine("note", make("bdi", {}, data.person.name), " came in.");
  else if (event === "left") addLine("note", make("bdi", {}, data.person.name), " left.");
  else if (event === "waved") addLine("note", make("bdi", {}, data.by.name), " waved.");
  else if (event === "counted") addLine("note", make("bdi", {}, data.by.name), ` counted to ${data.counter}.`);
  else if (event === "said") {
    const mine = data.by.id === you?.id;
    const who = make("bdi", { className: "who" }, mine ? "You" : data.by.name);
    const text = make("span", { className: "text", dir: "auto" }, data.text);
    addLine(mine ? "said mine" : "said", make("span", {}, who, " ", now()), " ", text);
  }
}

function showLog() {
  if (!logs.has(room)) {
    const log = make("ol", { className: "log", tabIndex: 0 });
    log.setAttribute("role", "log");
    log.setAttribute("aria-label", `Conversation in ${ROOMS[room].title}`);
    logs.set(room, log);
    $("logs").append(log);
  }
  for (const [key, log] of logs) log.hidden = key !== room;
}

function addLine(className, ...children) {
  const log = logs.get(room);
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(make("li", { className }, ...children));
  while (log.childElementCount > LOG_LENGTH) log.firstElementChild.remove();
  if (atEnd || className.includes("mine")) log.scrollTop = log.scrollHeight;
}

function addRelayed(text) {
  addLine("relayed", make("span", { className: "text", dir: "auto" }, text), " ", now());
}

function now() {
  const now = new Date();
  return make(
    "time",
    { dateTime: now.toISOString() },
    now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }),
  );
}

function showPeople(people) {
  const named = !ROOMS[room].raw;
  $("people").hidden = !named;
  $("nobody-known").hidden = named;
  $("people").replaceChildren(
    ...people.map((person) =>
      make("li", {}, make("bdi", {}, person.name), ...(person.id === you?.id ? [make("em", {}, " you")] : [])),
    ),
  );
}

function addFrame({ sent, text }) {
  const frames = $("frames");
  frames.prepend(
    make(
      "li",
      { className: sent ? "sent" : "received" },
      make("span", { className: "visually-hidden" }, sent ? "sent: " : "received: "),
      make("code", {}, text),
    ),
  );
  while (frames.childElementCount > FRAMES_LENGTH) frames.lastElementChild.remove();
}

// -- what one can do -------------------------------------------------------------------------------------------------

function showActions(actions) {
  $("actions").hidden = actions.length === 0;
  $("counter-box").hidden = !actions.some(({ action }) => action === "count");
  $("actions").replaceChildren(
    ...actions.map(({ action, label, hint, data }) => {
      const button = make("button", { type: "button" }, label);
      if (hint !== undefined) button.append(" ", make("small", {}, hint));
      button.addEventListener("click", () => act(action, data));
      return button;
    }),
  );
}

function showCounter(counter) {
  $("counter").textContent = counter;
}

/** Call an action and tell what became of it. True if it worked. */
async function act(action, data) {
  const here = connection;
  notify();
  try {
    const result = await here.call(action, data);
    if (here === connection && typeof result === "string") notify(result, "info");
    return true;
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    // What closes the room is told by the banner.
    if (here === connection && !(action === "close" && error.code === "connection_lost")) notify(explain(error));
    return false;
  }
}

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value;
  const { raw, say } = ROOMS[room];
  const here = room;
  if (connection.state !== "open") {
    notify(explain({ code: "not_connected" }));
  } else if (raw) {
    if (text !== "" && connection.send(text)) $("text").value = "";
  } else if (text.trim() !== "") {
    $("text").value = "";
    if (!(await act(say, { text }))) giveBack(here, text);
  }
  $("text").focus();
});

/** It was not sent, or nobody knows: the writer keeps it, unless they have begun anew. */
function giveBack(key, text) {
  if (key !== room) {
    if (!drafts.get(key)) drafts.set(key, text);
  } else if ($("text").value === "") {
    $("text").value = text;
  }
}

// -- errors, for people ----------------------------------------------------------------------------------------------

const SENTENCES = {
  action_deprecated: "This is no longer available.",
  action_disabled: "This has been switched off.",
  action_not_found: "The server does not know how to do that.",
  connection_lost: "The connection was lost before the server could answer.",
  internal_error: "Something went wrong on the server. It has been noted there.",
  no_answer: "The server does not answer.",
  not_connected: "Not connected yet. What you wrote is kept.",
  permission_denied: "You are not allowed to do that.",
  timeout: "That took too long, and was given up.",
};

function explain({ code, message, details, retryAfter }) {
  if (code === "throttled") return `Not so fast. Try again in ${inWords(retryAfter ?? 1)}.`;
  if (code === "invalid_data") {
    const problems = (details ?? []).map((detail) => detail.message).join("; ");
    return `The server did not accept this: ${problems || message}`;
  }
  return SENTENCES[code] ?? (message || `Something went wrong (${code}).`);
}

function inWords(seconds) {
  const whole = Math.ceil(seconds);
  if (whole <= 1) return "a second";
  if (whole < 90) return `${whole} seconds`;
  return `${Math.ceil(whole / 60)} minutes`;
}

function notify(text = "", kind = "error") {
  const notice = $("notice");
  notice.replaceChildren();
  if (text === "") return;
  const dismiss = make("button", { type: "button", className: "dismiss", ariaLabel: "Dismiss" }, "×");
  dismiss.addEventListener("click", () => {
    notify();
    $("text").focus();
  });
  notice.append(make("div", { className: kind }, make("p", {}, text), dismiss));
}

// -- begin -----------------------------------------------------------------------------------------------------------

if (name === null) showDoor();
else showHouse();
