// The page. All that is shown is made of the events of one group, by their offset: whether they came live, were missed,
// or are read from the history. Only progress is not among them; nobody needs it later.

import { Client } from "/static/client.js";

const $ = (id) => document.getElementById(id);

const STATES = { connecting: "Connecting…", open: "Connected", waiting: "Reconnecting…", closed: "Not connected" };
const ENDS = ["finished", "failed"];
const RETRY = 5_000; // ms until the token is renewed again where that failed

let client = null; // one for each login: what it knows is one person's
let renewal = 0; // the timer of the next one
let epoch = null;
let events = new Map(); // offset → {event, data, offset}
let progress = new Map(); // job → how much of it is done, from 0 to 1

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function send(path, data = {}) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) };
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const { detail, error } = await answer.json().catch(() => ({}));
  throw new Error(error?.message ?? (typeof detail === "string" ? detail : "The server did not take that."));
}

// -- what follows from the events -----------------------------------------------------------------------------------------

function inOrder() {
  return [...events.values()].sort((one, other) => one.offset - other.offset);
}

function running() {
  const found = new Map();
  for (const { event, data } of inOrder()) {
    if (event === "started") found.set(data.job, data);
    else if (ENDS.includes(event)) found.delete(data.job);
  }
  return [...found.values()];
}

function notifications() {
  const read = Math.max(0, ...inOrder().map(({ event, data }) => (event === "read" ? data.up_to : 0)));
  const titles = new Map(inOrder().map(({ event, data }) => [event === "started" ? data.job : "", data.title]));
  return inOrder()
    .filter(({ event }) => ENDS.includes(event))
    .reverse()
    .map(({ event, data, offset }) => ({
      isFailed: event === "failed",
      isUnread: offset > read,
      title: titles.get(data.job) ?? "A job",
      text: data.text,
      at: new Date(data.at),
      offset,
    }));
}

// -- what is seen ---------------------------------------------------------------------------------------------------------

function render() {
  const notes = notifications();
  const unread = notes.filter(({ isUnread }) => isUnread).length;
  document.title = unread > 0 ? `(${unread}) Notifications` : "Notifications";
  $("unread").hidden = $("read").hidden = unread === 0;
  $("unread").textContent = `${unread} new`;
  $("notes").replaceChildren(...notes.map(note));
  const jobs = running();
  // A bar that is there stays, so that it can grow.
  for (const bar of [...$("running").children]) {
    if (!jobs.some(({ job }) => job === bar.dataset.job)) bar.remove();
  }
  for (const { job, title } of jobs) showJob(job, title);
}

function note({ isFailed, isUnread, title, text, at }) {
  const isToday = at.toDateString() === new Date().toDateString();
  const when = isToday ? at.toLocaleTimeString([], { timeStyle: "short" }) : at.toLocaleDateString();
  const line = make(
    "li",
    { className: `${isUnread ? "unread" : ""} ${isFailed ? "failed" : ""}` },
    make("span", { className: "dot" }),
    make("p", { className: "title" }, isFailed ? `${title}: failed` : title),
    make("time", { dateTime: at.toISOString() }, when),
    make("p", { className: "text" }, text),
  );
  if (isUnread) line.querySelector(".dot").append(make("span", { className: "visually-hidden" }, "New"));
  return line;
}

function showJob(job, title) {
  let line = $("running").querySelector(`[data-job="${CSS.escape(job)}"]`);
  if (line === null) {
    const bar = make("progress", { id: `job-${job}`, max: 1 });
    line = make("li", {}, make("label", { htmlFor: bar.id }, title, make("output")), bar);
    line.dataset.job = job;
    $("running").append(line);
  }
  const done = progress.get(job);
  if (done === undefined) return;
  line.querySelector("progress").value = done;
  line.querySelector("output").textContent = `${Math.floor(done * 100)} %`;
}

// -- the connection -------------------------------------------------------------------------------------------------------

async function load() {
  let cursor = null;
  do {
    const page = await client.call("history", cursor === null ? {} : { cursor });
    if (page.epoch !== epoch) return; // it has begun anew meanwhile, and `joined` says so
    for (const event of page.results) events.set(event.offset, event);
    cursor = page.next;
  } while (cursor !== null);
  render();
}

// The next token, in time: in the cookie for handshakes to come, and over the socket that is open. No script can read the
// cookie, so the answer has the token too.
async function renew() {
  renewAfter(RETRY);
  const { token, expires_in } = await (await send("/token")).json();
  renewAfter(expires_in * 800); // four fifths of it, in ms
  if (client?.state === "open") await client.call("authenticate", { token });
}

function renewAfter(delay) {
  clearTimeout(renewal);
  renewal = setTimeout(() => renew().catch(() => {}), delay); // it is tried again, or the socket says 4401
}

function connect(user) {
  client = new Client(`/ws/${encodeURIComponent(user)}`, { greeting: "joined" });
  client.addEventListener("state", ({ detail }) => changed(detail));
  client.addEventListener("notice", ({ detail }) => noticed(detail));
  client.addEventListener("event", ({ detail }) => heard(detail));
  client.open();
}

function changed({ state, code }) {
  $("state").dataset.state = state;
  $("state").textContent = STATES[state];
  if (state === "closed" && code === 4401) start(); // logged out, perhaps on another device; or it slept for too long
}

function noticed({ type, epoch: current, recovered }) {
  if (type === "joined" && epoch !== current) {
    epoch = current;
    events = new Map();
  }
  const isMissing = type === "gap" || (type === "joined" && recovered !== true);
  if (isMissing) load().catch(() => {}); // the connection is lost: the next one begins anew
}

function heard(frame) {
  const { event, data, offset } = frame;
  if (event === "progress") {
    progress.set(data.job, data.done);
    for (const { job, title } of running()) showJob(job, title);
    return;
  }
  events.set(offset, frame);
  render();
  if (ENDS.includes(event)) {
    const [newest] = notifications();
    $("told").textContent = `${newest.title}: ${newest.text}`;
  }
}

// -- what can be done -----------------------------------------------------------------------------------------------------

$("read").addEventListener("click", () => {
  client.call("read", { up_to: notifications()[0].offset }).catch((error) => ($("told").textContent = error.message));
});

$("new").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await send("/jobs", { below: Number($("below").value) });
    $("job-error").textContent = "";
  } catch (error) {
    $("job-error").textContent = error.message;
  }
});

$("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await send("/login", { name: $("name").value.trim(), password: $("password").value });
    $("password").value = $("login-error").textContent = "";
    await start();
  } catch (error) {
    $("login-error").textContent = error.message;
    $("password").focus();
  }
});

// The server closes the sockets, and that leads to the door.
$("logout").addEventListener("click", () => send("/logout").catch(() => start()));
$("logout-everywhere").addEventListener("click", () => send("/logout?everywhere=true").catch(() => start()));

async function start() {
  clearTimeout(renewal);
  const me = await (await fetch("/me")).json();
  const isIn = me !== null;
  $("door").hidden = isIn;
  $("home").hidden = $("logout").hidden = $("state").hidden = !isIn;
  epoch = null;
  events = new Map();
  progress = new Map();
  render();
  if (!isIn) return;
  $("me").textContent = me.id;
  await renew().catch(() => {}); // the cookie that there is will do for now
  connect(me.id);
}

start();
