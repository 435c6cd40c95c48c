// The page as a whole: which section is shown, and what the socket brings.

import { $, toast } from "./dom.js";
import { Console } from "./console.js";
import { Connections, Groups } from "./lists.js";
import { Overview } from "./overview.js";
import { Schedules } from "./schedules.js";
import { Socket } from "./socket.js";
import { Routes, System } from "./system.js";

const base = new URL(document.documentElement.dataset.base, location.href);
const url = new URL("socket", base);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";

let failures = 0;

const socket = new Socket(url, {
  open() {
    failures = 0;
    state("connected", "Live");
    for (const { lives } of Object.values(sections)) for (const live of lives) live.again();
  },
  lost() {
    state("lost", navigator.onLine ? "Reconnecting…" : "Offline");
    if (++failures === 2) whyNot();
  },
  event(name, data) {
    if (name === "numbers") sections.overview.take(data);
    else if (name === "samples") sections.overview.begin(data);
    else if (name === "watched") sections.console.watched(data);
    else if (name === "skipped") sections.console.skipped(data);
    else if (name === "view") for (const { lives } of Object.values(sections)) for (const live of lives) live.changed(data);
  },
});

const sections = {
  overview: new Overview(socket),
  connections: new Connections(socket),
  groups: new Groups(socket),
  console: new Console(socket),
  schedules: new Schedules(socket),
  routes: new Routes(socket),
  system: new System(socket),
};

function state(name, text) {
  $("state").dataset.state = name;
  $("state").textContent = text;
}

/** A browser does not say why a socket was refused; a request does. */
async function whyNot() {
  try {
    const { status } = await fetch(new URL("numbers", base));
    if (status === 401 || status === 403) toast("You may not see this any more. Load the page again to sign in.", true);
  } catch {} // Nobody answers: that is said already.
}

let current = null;

function show() {
  // Begun with a slash, so that no browser takes it for the id of an element and scrolls there.
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const wanted = name in sections ? name : "overview";
  if (current !== null && current !== wanted) sections[current].leave();
  const isNew = current !== wanted;
  for (const id of Object.keys(sections)) $(id).hidden = id !== wanted;
  for (const link of document.querySelectorAll("nav.sections a")) {
    if (link.hash === `#/${wanted}`) {
      link.setAttribute("aria-current", "page");
      if (isNew) link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  document.title = `${document.querySelector(`#${wanted} h2`).textContent} · Consumers`;
  const isFirst = current === null;
  current = wanted;
  sections[wanted].enter(...parts);
  if (isNew && !isFirst) {
    scrollTo(0, 0);
    $("main").focus({ preventScroll: true });
  }
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", show);
show();
// How long ago something was.
setInterval(() => { if (!document.hidden) sections[current].table?.refresh(); }, 10_000);
