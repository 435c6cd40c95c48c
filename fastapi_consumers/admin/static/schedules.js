// What runs by itself: how it went, and what may be done about it.

import { $, ago, confirmed, h, number, toast } from "./dom.js";
import { run } from "./lists.js";
import { Table } from "./table.js";

const INTERVAL = 4000;

export class Schedules {
  #socket;
  #timer;

  constructor(socket) {
    this.#socket = socket;
    this.table = new Table($("schedules-list"), {
      caption: "Schedules",
      empty: "Nothing runs by itself.",
      columns: [
        { label: "Name", className: "main", isFixed: true, show: ({ name }) => name },
        { label: "What", className: "groups", show: ({ kind, group, event }) => (kind === "event" ? `${event} to ${group}` : kind) },
        { label: "When", show: ({ when }) => when },
        { label: "Next", className: "right", show: ({ next_run: at, paused }) => (paused ? h("span", { class: "bad" }, "paused") : until(at)) },
        { label: "Last", className: "right", show: (item) => last(item) },
        { label: "Runs", className: "right", show: ({ runs, errors }) => (errors ? `${number(runs)}, ${number(errors)} failed` : number(runs)) },
        { label: "Actions", isHidden: true, className: "actions", show: (item) => this.#actions(item) },
      ],
    });
    this.lives = [{ again: () => { if (!$("schedules").hidden) this.#load(); }, changed() {} }];
    $("schedule-form").addEventListener("submit", (event) => { event.preventDefault(); this.#create(event.target); });
  }

  enter() {
    this.#load();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => { if (!document.hidden) this.#load(); }, INTERVAL);
  }

  leave() {
    clearInterval(this.#timer);
  }

  async #load() {
    try {
      const { results, total } = await this.#socket.call("schedules");
      // Not while somebody is about to press a button of it: the buttons are made anew.
      if (this.table.element.contains(document.activeElement)) return;
      this.table.show({ keys: results.map(({ name }) => name), rows: results, next: null, total });
    } catch (error) {
      if (error.code === "not_found") {
        clearInterval(this.#timer);
        this.table.empty.textContent = "This application has no place to keep schedules that all of its processes share.";
        this.table.show({ keys: [], rows: [], next: null, total: 0 });
      } else if (error.code !== "not_connected") toast(error.message, true);
    }
  }

  #actions({ name, paused, kind, is_here: isHere }) {
    const button = (label, call) => h("button", {
      type: "button", class: "small", "aria-label": `${label} ${name}`,
      onClick: async (event) => {
        const { target } = event;
        await run(call);
        target.blur();
        this.#load();
      },
    }, label);
    const call = (action, data) => () => this.#socket.call(action, { name, ...data });
    return h("span", { class: "buttons" },
      button("Run now", async () => { await call("run_schedule")(); toast(`${name} is to run once.`); }),
      paused ? button("Resume", call("pause_schedule", { paused: false })) : button("Pause", call("pause_schedule", { paused: true })),
      kind === "event" || !isHere ? button("Delete", async () => {
        if (await confirmed("Delete it?", `${name} is forgotten, with its counts.`, "Delete")) await call("delete_schedule")();
      }) : null);
  }

  async #create(form) {
    const { name, kind, when, group, event, data } = form.elements;
    const problem = $("schedule-error");
    problem.textContent = "";
    let value = null;
    try {
      value = data.value.trim() === "" ? null : JSON.parse(data.value);
    } catch (error) {
      problem.textContent = `This is not JSON: ${error.message}`;
      data.focus();
      return;
    }
    try {
      await this.#socket.call("create_schedule", {
        name: name.value.trim(), [kind.value]: when.value.trim(), group: group.value.trim(), event: event.value.trim(), data: value,
      });
      form.reset();
      toast("It is created.");
      this.#load();
    } catch (error) {
      problem.textContent = [error.message, ...(error.details ?? []).map(({ message }) => message)].join(" ");
    }
  }
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
  return h("span", {}, `${ago(at)} ago, `, h("span", { class: isGood ? "good" : "bad" }, error ? `${outcome}: ${error}` : outcome ?? "–"));
}
