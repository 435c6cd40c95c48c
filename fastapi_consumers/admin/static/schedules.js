// What runs by itself: how it went, and what may be done about it.

import { $, ago, confirmed, h, number, toast } from "./dom.js";
import { settled } from "./live.js";
import { run } from "./lists.js";
import { Table } from "./table.js";

const INTERVAL = 4000;
const TIMES = { every: "30s, 5m or 1h30m", cron: "0 9 * * 1-5" };
const WHAT = {
  event: ({ event, group }) => `${event} to ${group}`,
  group: () => "a method, for each group",
  class: () => "a method",
  function: () => "a function",
};
/** What the server finds wrong, and the field that it is in. */
const FIELDS = { "unknown-time-zone": "tz", "bad-cron": "when", "bad-interval": "when", "bad-schedule-name": "name", "schedule-name-taken": "name" };

export class Schedules {
  #socket;
  #timer;
  #cursor = null;
  #asked = 0;

  constructor(socket) {
    this.#socket = socket;
    this.table = new Table($("schedules-list"), {
      caption: "Schedules",
      empty: "Nothing runs by itself.",
      columns: [
        { label: "Name", className: "main", show: (item) => h("span", {}, item.name, note(WHAT[item.kind]?.(item), "soft")) },
        { label: "When", show: ({ when }) => when.replace(/^every (\S+) s$/, (_, seconds) => `every ${span(Number(seconds))}`) },
        { label: "Next", className: "right", show: ({ next_run: at, paused }) => (paused ? h("span", { class: "bad" }, "paused") : until(at)) },
        { label: "Last", className: "right", show: (item) => last(item) },
        { label: "Runs", className: "right", show: (item) => counts(item) },
        { label: "Actions", isHidden: true, className: "actions", show: (item) => this.#actions(item) },
      ],
      onMore: (cursor) => this.#show(cursor),
      onFirst: () => this.#show(null),
    });
    this.lives = [{ again: () => { if (!$("schedules").hidden) this.#load(); }, changed() {} }];
    this.search = $("schedules").querySelector("form.tools");
    this.search.addEventListener("submit", (event) => { event.preventDefault(); this.#show(null); });
    this.search.elements.search.addEventListener("input", settled(() => this.#show(null)));
    this.form = $("schedule-form");
    const { kind, tz } = this.form.elements;
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.#create(); });
    kind.addEventListener("change", () => this.#choose());
    tz.addEventListener("focus", () => {
      if ($("time-zones").childElementCount === 0)
        $("time-zones").append(...(Intl.supportedValuesOf?.("timeZone") ?? []).map((name) => h("option", { value: name })));
    });
    this.#choose();
  }

  enter() {
    this.#show(null);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => { if (!document.hidden) this.#load(); }, INTERVAL);
  }

  leave() {
    clearInterval(this.#timer);
  }

  #show(cursor) {
    this.#cursor = cursor;
    this.#load();
  }

  async #load() {
    const asked = ++this.#asked;
    const search = this.search.elements.search.value.trim();
    const cursor = this.#cursor;
    try {
      const page = await this.#socket.call("schedules", { limit: 50, ...(search ? { search } : {}), ...(cursor ? { cursor } : {}) });
      if (asked !== this.#asked) return;
      const { results: rows, next, total } = page;
      this.table.empty.textContent = search ? "No schedule is like this." : "Nothing runs by itself.";
      this.table.show({ keys: rows.map(({ name }) => name), rows, next, total }, cursor === null);
    } catch (error) {
      if (asked !== this.#asked) return;
      if (error.code === "not_found") {
        clearInterval(this.#timer);
        this.table.empty.textContent = "This application has no place to keep schedules that all of its processes share.";
        this.table.show({ keys: [], rows: [], next: null, total: 0 });
      } else if (error.code !== "not_connected") toast(error.message, true);
    }
  }

  #actions({ name, paused, kind, is_here: isHere }) {
    const button = (mark, label, call) => h("button", {
      type: "button", class: "small", "data-mark": mark, "aria-label": `${label} ${name}`,
      onClick: async () => {
        await run(call);
        this.#load();
      },
    }, label);
    const call = (action, data) => () => this.#socket.call(action, { name, ...data });
    return h("span", { class: "buttons" },
      button("run", "Run now", async () => { await call("run_schedule")(); toast(`${name} is to run once.`); }),
      paused ? button("pause", "Resume", call("pause_schedule", { paused: false })) : button("pause", "Pause", call("pause_schedule", { paused: true })),
      kind === "event" || !isHere ? button("delete", "Delete", async () => {
        if (await confirmed("Delete it?", `${name} is forgotten, with its counts.`, "Delete")) await call("delete_schedule")();
      }) : null);
  }

  /** A time zone says something of a line of cron only. */
  #choose() {
    const { kind, when } = this.form.elements;
    $("schedule-zone").hidden = kind.value !== "cron";
    when.placeholder = TIMES[kind.value];
  }

  async #create() {
    const { name, kind, when, tz, group, event, data } = this.form.elements;
    for (const field of this.form.elements) field.removeAttribute("aria-invalid");
    $("schedule-error").textContent = "";
    let value = null;
    try {
      value = data.value.trim() === "" ? null : JSON.parse(data.value);
    } catch (error) {
      this.#complain(`This is not JSON: ${error.message}`, data);
      return;
    }
    const zone = kind.value === "cron" && tz.value.trim() ? { tz: tz.value.trim() } : {};
    try {
      await this.#socket.call("create_schedule", {
        name: name.value.trim(), [kind.value]: when.value.trim(), ...zone, group: group.value.trim(), event: event.value.trim(), data: value,
      });
      this.form.reset();
      this.#choose();
      toast("It is created.");
      this.#load();
    } catch (error) {
      const details = Array.isArray(error.details) ? error.details : [];
      const [wrong] = details.map(({ type, loc }) => this.form.elements[FIELDS[type] ?? { every: "when", cron: "when" }[loc?.at(-1)] ?? loc?.at(-1)]);
      this.#complain([error.message, ...details.map(({ message }) => message)].join(" "), wrong);
    }
  }

  #complain(text, field) {
    $("schedule-error").textContent = text;
    field?.setAttribute("aria-invalid", "true");
    field?.focus();
  }
}

/** Seconds, in the largest unit that they are whole in. */
function span(seconds) {
  const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, size]) => seconds % size === 0) ?? ["s", 1];
  return `${number(seconds / size)} ${unit}`;
}

function until(iso) {
  if (!iso) return "–";
  const seconds = Math.round((Date.parse(iso) - Date.now()) / 1000);
  if (seconds <= 0) return "now";
  return `in ${ago(new Date(Date.now() - seconds * 1000).toISOString())}`;
}

function last({ last_run: at, last_outcome: outcome, last_error: error, running }) {
  if (running.length > 0) return "running";
  if (!at) return "–";
  const isGood = outcome === "ok";
  return h("span", {}, `${ago(at)} ago`, note(error ?? outcome, isGood ? "good" : "bad"));
}

/** A line of its own below the value. */
const note = (text, className) => (text ? h("span", { class: `note ${className}` }, text) : null);

function counts({ runs, errors, missed, lost }) {
  const some = (count, what, className) => (count ? note(`${number(count)} ${what}`, className) : null);
  return h("span", {}, number(runs), some(errors, "failed", "bad"), some(lost, "lost", "bad"), some(missed, "missed", "soft"));
}
