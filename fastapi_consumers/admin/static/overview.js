// The numbers, drawn, and the largest groups.

import { $, about, h, number, refocus } from "./dom.js";
import { Live } from "./live.js";
import { Plot } from "./plot.js";

const CARDS = [
  { name: "connections", label: "Connections", isLarge: true, of: (now) => now.connections },
  { name: "rate", label: "Messages sent per second", isLarge: true, unit: "/s", of: (now, before) => rate(now, before, "sent") },
  { name: "groups", label: "Groups", of: (now) => now.groups, hint: "in all" },
  { name: "queued", label: "Waiting", of: (now) => now.queued, hint: "messages" },
  { name: "dropped", label: "Dropped", unit: "/s", of: (now, before) => rate(now, before, "dropped"), hint: "per second" },
  { name: "processes", label: "Processes", of: (now) => now.processes, hint: "answering" },
];

function rate(now, before, name) {
  if (before === undefined || now.at <= before.at || now.processes !== before.processes) return null;
  return Math.max(0, (now[name] - before[name]) / (now.at - before.at));
}

function bars(place, items, link) {
  const most = Math.max(1, ...items.map(([, count]) => count));
  const rows = items.map(([name, count]) => {
    const bar = h("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--part", count / most);
    return h("li", {}, bar, link ? h("a", { href: link(name) }, name) : h("span", { class: "name" }, name), h("span", { class: "count" }, number(count)));
  });
  if (rows.length === 0) rows.push(h("li", { class: "empty" }, "Nobody is here."));
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  place.replaceChildren(...rows);
  refocus(focused, place);
}

export class Overview {
  #cards = new Map();
  #last;
  #groups = new Map();
  #keys = [];
  #processes = new Map();

  constructor(socket) {
    for (const { name, label, isLarge, unit, hint } of CARDS) {
      const plot = new Plot({ label, unit, isLarge });
      const value = h("p", { class: "value" }, "–");
      $("cards").append(h("article", { class: isLarge ? "card wide" : "card", id: `card-${name}` },
        h("h3", {}, label), value, hint ? h("p", { class: "hint" }, hint) : null, plot.element));
      this.#cards.set(name, { plot, value });
    }
    this.largest = new Live(socket, "largest", {
      whole: (page) => { this.#groups = byKey(page); this.#keys = page.keys; this.#showGroups(); },
      change: (delta) => { apply(this.#groups, delta); this.#keys = delta.keys ?? this.#keys; this.#showGroups(); },
    });
    this.processes = new Live(socket, "classes", {
      whole: (page) => { this.#processes = byKey(page); this.#showClasses(); },
      change: (delta) => { apply(this.#processes, delta); this.#showClasses(); },
    });
    this.lives = [this.largest, this.processes];
  }

  enter() {
    this.largest.open({ kind: "groups", order: "size", limit: 8 });
    this.processes.open({ kind: "processes" });
  }

  leave() {
    for (const live of this.lives) live.close();
  }

  /** What others have seen in the last minutes. */
  begin(samples) {
    this.#last = undefined;
    for (const { plot } of this.#cards.values()) plot.clear();
    for (const sample of samples) this.#add(sample);
    this.#draw();
  }

  take(sample) {
    this.#add(sample);
    this.#draw();
    const problems = [];
    if (!sample.healthy) problems.push("A process has lost its broker.");
    if (sample.silent) problems.push(`${sample.silent} process${sample.silent === 1 ? " does" : "es do"} not answer.`);
    $("alarm").hidden = problems.length === 0;
    if ($("alarm").textContent !== problems.join(" ")) $("alarm").textContent = problems.join(" ");
  }

  #add(sample) {
    for (const { name, of, unit } of CARDS) {
      const found = of(sample, this.#last);
      const { plot, value } = this.#cards.get(name);
      if (found === null) continue;
      plot.add(sample.at, found);
      value.textContent = unit ? about(found) : number(found);
    }
    this.#last = sample;
  }

  #draw() {
    if (document.hidden || $("overview").hidden) return;
    for (const { plot } of this.#cards.values()) plot.draw();
  }

  #showGroups() {
    bars($("largest"), this.#keys.map((key) => [key, this.#groups.get(key).connections]), (name) => `#/console/${encodeURIComponent(name)}`);
  }

  #showClasses() {
    const sums = new Map();
    for (const { consumers } of this.#processes.values())
      for (const [name, count] of Object.entries(consumers)) sums.set(name, (sums.get(name) ?? 0) + count);
    bars($("classes"), [...sums].sort((one, other) => other[1] - one[1]).slice(0, 8));
  }
}

const byKey = (page) => new Map(page.keys.map((key, index) => [key, page.rows[index]]));

function apply(items, delta) {
  for (const [key, fields] of Object.entries(delta.rows ?? {})) items.set(key, { ...items.get(key), ...fields });
  if (delta.keys) for (const key of [...items.keys()]) if (!delta.keys.includes(key)) items.delete(key);
}
