// The page: a door where one gives a name, and three rooms of which one is in at most one. Whatever people write goes
// into the document as text, never as HTML.

import { CallError, Connection } from "./connection.js";
import { $, make, when } from "./dom.js";
import { Log } from "./log.js";
import { Present } from "./people.js";

const FRAMES_LENGTH = 40;
const TYPING_EVERY = 3_000; // ms between two hints that one is writing …
const TYPING_FOR = 5_000; // … and for how long one is shown

const ROOMS = {
  relay: {
    title: "Relay",
    about: "What you send reaches everybody here exactly as you sent it. The server adds nothing, not even your name.",
    raw: true,
    heartbeat: null,
  },
  two: {
    title: "For two",
    about: "Two people, one counter, and some things that go wrong on purpose.",
    say: "say",
    heartbeat: "who",
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
    about: "Everybody is welcome. What is said is kept, also for those who are away.",
    say: "message",
    heartbeat: "presence",
    // Its server keeps history and presence, and knows private messages and hints of who is writing.
    keeps: true,
    actions: [
      { action: "grumble", label: "Grumble", hint: "error, stays" },
      { action: "misbehave", label: "Misbehave", hint: "error, closes" },
    ],
  },
};

let name = sessionStorage.getItem("name");
let room = null; // the key of the room one is in
let connection = null;
let you = null; // as the server knows this visitor: {id, name}, in the group the name alone
let cameBefore = false; // into this room, by this connection
let missed = null; // what came while one was away: how many messages, as long as they come in
let lost = false; // some of it cannot be had that way
let present = new Present();
let confidant = null; // who alone gets what one writes
let returned = ""; // a text that was given back to its writer, since nobody knew whether it was sent
const logs = new Map(); // room → its conversation
const drafts = new Map(); // room → {text, to}: what was written and not sent, and to whom alone

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
  // Whoever comes now is somebody else, whom private messages of before do not concern.
  if (name !== null && name !== chosen) forget("group");
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
  if (room !== null) drafts.set(room, { text: $("text").value, to: confidant });
  hideTyping();
  connection?.close();
  connection = null;
  room = null;
}

function forget(key) {
  drafts.delete(key);
  logs.get(key)?.element.remove();
  logs.delete(key);
}

function enter(key) {
  leave();
  room = key;
  const { title, about, actions = [] } = ROOMS[key];
  document.title = `${title} – Three rooms`;
  $("title").textContent = title;
  $("about").textContent = about;
  const { text, to } = drafts.get(key) ?? { text: "", to: null };
  $("text").value = text;
  confide(to);
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
  const { raw = false, heartbeat } = ROOMS[room];
  const url = new URL(`/ws/${room}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  if (!raw) url.searchParams.set("name", name);
  you = null;
  cameBefore = false;
  forgetPeople();
  notify();
  showBanner();
  const { positions } = logs.get(room);
  connection = new Connection(url, raw ? { raw } : { greeting: "welcome", heartbeat, positions });
  connection.addEventListener("state", ({ detail }) => showState(detail));
  connection.addEventListener("event", ({ detail }) => handle(detail));
  connection.addEventListener("notice", ({ detail }) => heed(detail));
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
          ? code === 1012
            ? "The server is restarting. You will be back in a moment; what you write is kept."
            : "The connection was lost. Trying to get you back in; what you write is kept."
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
    if (ROOMS[room].keeps) catchUp(connection, cameBefore);
    else if (cameBefore) addLine("note", "You are back. What was said meanwhile has passed you by.");
    else if (!ROOMS[room].raw) addLine("note", "You are in, as ", make("bdi", {}, name), ".");
    cameBefore = true;
    showBanner();
    // With a keyboard at hand one wants to write; on a phone the keyboard would cover half of the room.
    if (document.activeElement === $("title") && matchMedia("(pointer: fine)").matches) $("text").focus();
  } else if (text !== undefined) {
    if ($("banner-text").textContent === "") notify();
    if (cameBefore && state === "waiting" && $("banner-text").textContent === "") addLine("note", "Connection lost.");
    forgetPeople();
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

function handle({ event, data, offset = null }) {
  if (event === "welcome") you = data.you;
  if (data?.people !== undefined) showPeople(data.people);
  if (data?.counter !== undefined) showCounter(data.counter);
  if (event === "joined") addLine("note", make("bdi", {}, data.person.name), " came in.");
  else if (event === "left") addLine("note", make("bdi", {}, data.person.name), " left.");
  else if (event === "waved") addLine("note", make("bdi", {}, data.by.name), " waved.");
  else if (event === "counted") addLine("note", make("bdi", {}, data.by.name), ` counted to ${data.counter}.`);
  else if (event === "typing") showTyping(data.by);
  else if (event === "whispered" && ROOMS[room].keeps) addWhisper(data);
  else if (event === "said") {
    if (missed === 0) addLine("note divider", "While you were away");
    if (missed !== null) missed += 1;
    const line = said(data, missed !== null);
    const isMine = line.classList.contains("mine");
    logs.get(room).put(line, { offset, follow: isMine && missed === null });
    if (ROOMS[room].keeps) hideTyping(data.by);
    if (isMine && missed !== null && data.text === returned.trim() && $("text").value === returned) {
      // It had arrived, and only the answer was lost.
      $("text").value = returned = "";
    }
  }
}

/** What the server says of the group, not what somebody does in it. */
function heed({ type, epoch, recovered, ...notice }) {
  const log = logs.get(room);
  if (type === "joined") {
    log.joined(epoch, recovered === true);
    missed = recovered === true ? 0 : null;
    lost = recovered === false;
  } else if (type === "gap") {
    log.missed();
    lost = true;
    if (you !== null && connection.state === "open") catchUp(connection, true);
  } else if (type === "presence") {
    const { came, left } = present.apply(notice);
    // Before one knows who was there, nobody can be told from those who were.
    if (!present.isKnown) return;
    for (const other of came) if (other !== you) addLine("note", make("bdi", {}, other), " came in.");
    for (const other of left) if (other !== you) addLine("note", make("bdi", {}, other), " left.");
    for (const other of left) hideTyping(other);
    showPresent();
  }
}

/** One is in, or in again: learn who is there, and what was said. */
async function catchUp(here, isBack) {
  const count = missed;
  missed = null;
  const wasLost = lost;
  lost = false;
  try {
    await Promise.all([loadPeople(here), loadNewest(here)]);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    if (here === connection) {
      notify(explain(error));
      if (logs.get(room).isStale) logs.get(room).failed();
    }
  }
  if (here !== connection || here.state !== "open") {
    lost ||= wasLost;
    return;
  }
  const messages = count === 1 ? "One message" : `${count} messages`;
  if (!isBack) addLine("note", "You are in, as ", make("bdi", {}, name), ".");
  if (wasLost) addLine("note", "Not everything could be delivered to you. The newest messages have been loaded again.");
  else if (count > 0) addLine("note", `${isBack ? "You are back. " : ""}${messages} came while you were away.`);
  else if (isBack) addLine("note", "You are back. You have missed nothing.");
}

async function loadPeople(here) {
  const { members } = await here.call("presence");
  if (here !== connection) return;
  present.reset(members);
  showPresent();
}

async function loadNewest(here) {
  const log = logs.get(room);
  if (!log.isStale) return;
  const page = await here.call("history");
  if (here === connection) log.showNewest(page, kept);
}

async function loadOlder(key, cursor, pressed) {
  const here = connection;
  if (key !== room || (here.state !== "open" && !pressed)) return;
  if (pressed) notify();
  try {
    if (cursor === null) return await loadNewest(here);
    const page = await here.call("history", { cursor });
    if (here === connection && !logs.get(key).showOlder(page, kept)) await beginAnew(here, key);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    if (here !== connection) return;
    if (error.code === "invalid_cursor") await beginAnew(here, key);
    else notify(explain(error));
  }
}

/** The server has forgotten all that was said, and what is here is of before. */
async function beginAnew(here, key) {
  logs.get(key).missed();
  await catchUp(here, true);
}

function showLog() {
  if (!logs.has(room)) {
    const key = room;
    const { title, keeps = false } = ROOMS[key];
    const log = new Log(title, keeps ? (cursor, pressed) => loadOlder(key, cursor, pressed) : null);
    logs.set(key, log);
    $("logs").append(log.element);
  }
  for (const log of logs.values()) log.element.hidden = true;
  logs.get(room).show();
}

function addLine(className, ...children) {
  logs.get(room).put(make("li", { className }, ...children));
}

/** What somebody said, as a line. People have a number in the room for two, and a name alone in the group. */
function said({ by, text, at }, wasMissed = false) {
  const mine = by.id === undefined ? by === you || by === name : by.id === you?.id;
  const who = make("bdi", { className: "who" }, mine ? "You" : (by.name ?? by));
  return make(
    "li",
    { className: `said${mine ? " mine" : ""}${wasMissed ? " missed" : ""}` },
    make("span", {}, who, " ", when(at && new Date(at))),
    " ",
    make("span", { className: "text", dir: "auto" }, text),
  );
}

/** A message of the past. */
function kept({ data }) {
  return said(data);
}

function addWhisper({ by, to, text, at }) {
  const mine = by === you;
  const line = said({ by, text, at });
  const note = mine ? ["only to ", make("bdi", {}, to)] : ["only to you"];
  line.firstElementChild.firstElementChild.after(make("span", { className: "only" }, ", ", ...note));
  line.classList.add("whispered");
  logs.get(room).put(line, { follow: mine });
  hideTyping(by);
}

function addRelayed(text) {
  addLine("relayed", make("span", { className: "text", dir: "auto" }, text), " ", when());
}

// -- who is there ----------------------------------------------------------------------------------------------------

function forgetPeople() {
  present = new Present();
  missed = null;
  hideTyping();
  showPeople([]);
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

function showPresent() {
  const focused = $("people").contains(document.activeElement) ? document.activeElement.dataset.name : null;
  $("people").replaceChildren(
    ...present.people.map((person) => {
      const isMe = person.name === you;
      const notes = [isMe ? "you" : "", person.windows > 1 ? `${person.windows} windows` : ""].filter(Boolean);
      const parts = [make("bdi", {}, person.name), ...(notes.length ? [make("em", {}, ` ${notes.join(", ")}`)] : [])];
      if (isMe) return make("li", {}, ...parts);
      const button = make("button", { type: "button", title: "Write to them alone" }, ...parts);
      button.dataset.name = person.name;
      button.addEventListener("click", () => {
        confide(person.name);
        $("text").focus();
      });
      return make("li", {}, button);
    }),
  );
  if (focused !== null) [...$("people").querySelectorAll("button")].find((it) => it.dataset.name === focused)?.focus();
}

/** From now on write to one person alone; with `null`, to everybody. */
function confide(other) {
  confidant = other;
  $("private").hidden = other === null;
  $("confidant").textContent = other ?? "";
  $("composer").classList.toggle("private", other !== null);
  $("text").placeholder = other === null ? "Write a message" : "Write a private message";
  $("text-label").textContent = other === null ? `Message to ${ROOMS[room].title}` : `Private message to ${other}`;
}

$("to-all").addEventListener("click", () => {
  confide(null);
  $("text").focus();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && confidant !== null) confide(null);
});

// -- who is writing --------------------------------------------------------------------------------------------------

const writers = new Map(); // name → the timer that ends it
let hintedAt = -Infinity;

function showTyping(other) {
  if (other === you) return;
  clearTimeout(writers.get(other));
  writers.set(
    other,
    setTimeout(() => hideTyping(other), TYPING_FOR),
  );
  tellTyping();
}

/** Somebody has written, or has left; without a name, all of them. */
function hideTyping(other = null) {
  for (const writer of other === null ? [...writers.keys()] : [other]) {
    clearTimeout(writers.get(writer));
    writers.delete(writer);
  }
  tellTyping();
}

function tellTyping() {
  const [one, other] = [...writers.keys()].map((writer) => make("bdi", {}, writer));
  const parts = [
    [],
    [one, " is writing…"],
    [one, " and ", other, " are writing…"],
    [`${writers.size} people are writing…`],
  ][Math.min(writers.size, 3)];
  $("typing").replaceChildren(...parts);
  $("typing").hidden = room === null || !ROOMS[room].keeps;
}

$("text").addEventListener("input", () => {
  const now = performance.now();
  if (!ROOMS[room].keeps || confidant !== null || $("text").value.trim() === "") return;
  if (connection.state !== "open" || now - hintedAt < TYPING_EVERY) return;
  hintedAt = now;
  // If it fails, nobody has lost anything.
  connection.call("typing").catch(() => {});
});

// -- the frames ------------------------------------------------------------------------------------------------------

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
    hintedAt = -Infinity;
    const to = confidant;
    const worked = await (to === null ? act(say, { text }) : act("whisper", { to, text }));
    if (!worked) giveBack(here, text, to);
  }
  $("text").focus();
});

/** It was not sent, or nobody knows: the writer keeps it, unless they have begun anew. */
function giveBack(key, text, to) {
  if (key !== room) {
    if (!drafts.get(key)?.text) drafts.set(key, { text, to });
  } else if ($("text").value === "") {
    $("text").value = returned = text;
    // What was meant for one person must not go to all by the next press of a key.
    confide(to);
  }
}

// -- errors, for people ----------------------------------------------------------------------------------------------

const SENTENCES = {
  action_deprecated: "This is no longer available.",
  action_disabled: "This has been switched off.",
  broker_unavailable: "The server cannot reach the others at the moment. Try again in a while.",
  history_unavailable: "The server cannot get at its messages at the moment. Try again in a while.",
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
