// The page: cards for the metrics, and what the server says of the line to it.

import { Card } from "/static/card.js";
import { connect } from "/static/socket.js";

const STATES = { connecting: "Connecting", open: "Live", waiting: "Offline, trying again" };
const ABOUT = {
  fast: "Everything that is sent arrives.",
  slow: "Two messages a second get through. Of each metric only the newest value waits; older ones are replaced by it.",
};

const $ = (id) => document.getElementById(id);
const cards = new Map();
let now = 0; // the newest time that the server told, so that no clock of this machine matters
let received = 0;
let isPaused = false;
let isDue = false;
let end = null;

function draw() {
  isDue = false;
  if (isPaused) return;
  for (const card of cards.values()) card.show(now);
  $("received").textContent = received.toLocaleString("en");
}

function changed() {
  if (!isDue) requestAnimationFrame(draw);
  isDue = true;
}

function onEvent(event, data) {
  if (event === "welcome") {
    for (const metric of data.metrics) {
      if (!cards.has(metric.name)) {
        cards.set(metric.name, new Card(metric));
        $("board").append(cards.get(metric.name).element);
      }
      const points = data.recent[metric.name];
      cards.get(metric.name).reset(points);
      now = Math.max(now, points.at(-1)?.[0] ?? 0);
    }
  } else if (event === "reading") {
    received += 1;
    now = Math.max(now, data.at);
    cards.get(data.metric)?.add(data.at, data.value);
  }
  changed();
}

function onAnswer({ waiting, coalesced }) {
  $("waiting").textContent = waiting;
  $("coalesced").textContent = coalesced.toLocaleString("en");
}

function onState(state) {
  $("state").textContent = STATES[state];
  $("state").dataset.state = state;
}

function open(line) {
  end?.();
  received = 0;
  onAnswer({ waiting: 0, coalesced: 0 });
  $("about").textContent = ABOUT[line];
  const url = new URL("/ws", location.href.replace(/^http/, "ws"));
  if (line === "slow") url.searchParams.set("line", "slow");
  end = connect(url, "line", { onState, onEvent, onAnswer });
}

$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", isPaused);
  changed();
});

const lines = [...document.querySelectorAll("input[name=line]")];
for (const input of lines) input.addEventListener("change", () => open(input.value));
// A browser may remember what was chosen before the page was reloaded.
open(lines.find((input) => input.checked).value);
