// The page: which devices there are, which of them are online, and what they measured.

import { Client } from "/static/client.js";

const $ = (id) => document.getElementById(id);

const STATES = { connecting: "Connecting…", open: "Connected", waiting: "Reconnecting…", closed: "Not connected" };
const UNITS = { temperature: "°C", humidity: "%", wind: "m/s", light: "lx" };
const SVG = "http://www.w3.org/2000/svg";
const LENGTH = 60; // values of a sensor that are drawn, as many as the server remembers
const RECENT = 10_000; // ms over which the rate is counted

const cards = new Map(); // device → its Card
const present = new Map(); // device → the refs of its connections
let arrivals = []; // [time, readings], of the last few seconds

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const round = (value) => value.toLocaleString([], { minimumFractionDigits: 1, maximumFractionDigits: 1 });

class Sensor {
  values = [];
  element;
  #value = make("span");
  #line = draw("polyline", { "vector-effect": "non-scaling-stroke" });
  #chart = draw("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img" });
  #name;

  constructor(name) {
    this.#name = name.replaceAll("_", " ");
    this.#chart.append(this.#line);
    const value = make("p", { className: "value" }, this.#value, make("small", {}, ` ${UNITS[name] ?? ""}`));
    this.element = make("li", { className: "sensor" }, make("p", { className: "name" }, this.#name), value, this.#chart);
  }

  add(readings) {
    this.values = [...this.values, ...readings.map(({ value }) => value)].slice(-LENGTH);
    const { values } = this;
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const points = values.map((value, at) => {
      const x = values.length === 1 ? 100 : (100 * at) / (values.length - 1);
      return `${x.toFixed(1)},${(28 - (26 * (value - least)) / (most - least || 1)).toFixed(1)}`;
    });
    this.#line.setAttribute("points", points.join(" "));
    this.#value.textContent = round(values.at(-1));
    this.#chart.setAttribute("aria-label", `${this.#name}, the last ${values.length} values: ${round(least)} to ${round(most)}`);
  }
}

class Card {
  element;
  #sensors = new Map();
  #list = make("ul");
  #presence = make("p", { className: "presence" });
  #seen = make("p", { className: "seen" });
  #last = 0;

  constructor(id) {
    const title = make("h2", {}, make("bdi", {}, id));
    this.element = make("section", {}, make("header", {}, title, this.#presence), this.#seen, this.#list);
    this.element.setAttribute("aria-label", id);
    this.show(false);
  }

  /** Begin anew, with all that the server has. */
  reset(sensors) {
    this.#sensors.clear();
    this.#list.replaceChildren();
    for (const readings of Object.values(sensors)) this.add(readings);
  }

  add(readings) {
    for (const reading of readings) {
      if (!this.#sensors.has(reading.sensor)) {
        const sensor = new Sensor(reading.sensor);
        this.#sensors.set(reading.sensor, sensor);
        this.#list.append(sensor.element);
      }
      this.#last = Math.max(this.#last, reading.at);
    }
    for (const [name, sensor] of this.#sensors) {
      const own = readings.filter((reading) => reading.sensor === name);
      if (own.length > 0) sensor.add(own);
    }
    this.#tell();
  }

  show(isOnline) {
    this.element.className = `device ${isOnline ? "online" : "offline"}`;
    this.#presence.textContent = isOnline ? "Online" : "Offline";
    this.#tell();
  }

  #tell() {
    const at = new Date(this.#last * 1000);
    this.#seen.textContent = this.#last === 0 ? "Nothing measured yet" : `Last measured at ${at.toLocaleTimeString()}`;
  }
}

function card(id) {
  if (!cards.has(id)) {
    cards.set(id, new Card(id));
    $("devices").append(cards.get(id).element);
  }
  return cards.get(id);
}

function reset(devices) {
  for (const { id, sensors } of devices) card(id).reset(sensors);
}

// -- who is there ---------------------------------------------------------------------------------------------------------

function apply({ joins, leaves }) {
  for (const [id, { metas }] of Object.entries(leaves)) {
    for (const { ref } of metas) present.get(id)?.delete(ref);
    if (present.get(id)?.size === 0) present.delete(id);
  }
  for (const [id, { metas }] of Object.entries(joins)) {
    if (!present.has(id)) present.set(id, new Set());
    for (const { ref } of metas) present.get(id).add(ref);
  }
  for (const id of present.keys()) card(id);
  for (const [id, each] of cards) each.show(present.has(id));
  const text = make("strong", {}, `${present.size} of ${cards.size}`);
  $("online").replaceChildren(text, " devices online");
}

async function askWhoIsThere() {
  const { members } = await client.call("presence", { group: "fleet" });
  present.clear();
  apply({ joins: members, leaves: {} });
}

function showRate() {
  const now = performance.now();
  arrivals = arrivals.filter(([at]) => now - at < RECENT);
  const sum = arrivals.reduce((total, [, readings]) => total + readings, 0);
  const text = make("strong", {}, round((sum * 1000) / RECENT));
  $("rate").replaceChildren(text, " readings a second");
}

// -- the connection -------------------------------------------------------------------------------------------------------

const client = new Client("/ws/watch", { greeting: "welcome" });

client.addEventListener("state", ({ detail: { state } }) => {
  $("state").dataset.state = state;
  $("state").textContent = STATES[state];
  if (state === "open") askWhoIsThere().catch(() => {}); // the connection is lost: the next one asks again
});

client.addEventListener("event", ({ detail: { event, data } }) => {
  if (event === "welcome") {
    reset(data.devices);
  } else if (event === "readings") {
    card(data.device).add(data.readings);
    arrivals.push([performance.now(), data.readings.length]);
  }
});

client.addEventListener("notice", async ({ detail }) => {
  if (detail.type === "presence") {
    apply(detail);
  } else if (detail.type === "gap") {
    // Something was dropped, because this page did not keep up, or lost on its way.
    try {
      reset(await client.call("look"));
      await askWhoIsThere();
    } catch {
      // The connection is lost: the next one begins with everything.
    }
  }
});

setInterval(showRate, 1000);
client.open();
