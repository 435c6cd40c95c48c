// Routes, processes, and the little that can be set.

import { $, ago, h, number, refocus, toast } from "./dom.js";
import { Live } from "./live.js";
import { Table } from "./table.js";

export class Routes {
  #socket;

  constructor(socket) {
    this.#socket = socket;
    this.lives = [{ again: () => { if (!$("routes").hidden) this.enter(); }, changed() {} }];
  }

  async enter() {
    try {
      const { results } = await this.#socket.call("routes");
      const place = $("routes-list");
      const opened = new Set([...place.querySelectorAll("details[open] summary")].map(({ dataset }) => dataset.mark));
      const focused = place.contains(document.activeElement) ? document.activeElement : null;
      place.replaceChildren(...results.map((route) => card(route, opened.has(route.path))));
      if (results.length === 0) place.append(h("p", { class: "empty" }, "Nothing is routed."));
      refocus(focused, place);
    } catch (error) {
      if (error.code !== "not_connected") toast(error.message, true);
    }
  }

  leave() {}
}

function card(route, isOpen) {
  const facts = {
    Groups: route.groups.join(", "),
    History: route.history,
    Presence: route.presence,
    Authentication: route.authentication.join(", "),
    Permissions: route.permissions.join(", "),
    Throttles: route.throttles.join(", "),
    Handshakes: route.connection_throttles.join(", "),
  };
  const rows = Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
  const actions = route.actions.map((action) => {
    const notes = [
      action.streams && "streams", action.concurrent && "concurrent", action.timeout && `${action.timeout} s`,
      action.deprecated && "deprecated", !action.enabled && "disabled", ...action.throttles,
    ].filter(Boolean);
    return h("li", {}, h("code", {}, action.name), notes.length ? h("span", { class: "soft" }, ` ${notes.join(", ")}`) : null);
  });
  return h("article", { class: "panel route" },
    h("h3", {}, h("code", {}, route.path)),
    h("p", { class: "soft" }, `${route.consumer}, ${route.module}, line ${route.line}`),
    h("dl", { class: "facts" }, ...rows),
    h("details", { open: isOpen }, h("summary", { "data-mark": route.path }, `${number(actions.length)} action${actions.length === 1 ? "" : "s"}`), h("ul", { class: "chips" }, ...actions)));
}

export class System {
  #socket;

  constructor(socket) {
    this.#socket = socket;
    this.table = new Table($("processes-list"), {
      caption: "Processes",
      empty: "No process answers.",
      columns: [
        { label: "Process", className: "main", isFixed: true, show: ({ process }) => h("code", {}, process) },
        { label: "Host", show: ({ host, pid }) => `${host}, ${pid}` },
        { label: "Started", className: "right", show: ({ opened_at: at }) => `${ago(at)} ago` },
        { label: "Connections", className: "right", show: ({ health }) => number(health.connections) },
        { label: "Groups", className: "right", show: ({ health }) => number(health.groups) },
        { label: "Broker", show: ({ health }) => h("span", { class: health.healthy ? "good" : "bad" }, health.healthy ? "connected" : "lost") },
      ],
    });
    this.live = new Live(socket, "processes", {
      whole: (page) => this.table.show(page),
      change: (delta) => this.table.change(delta),
    });
    this.lives = [this.live, { again: () => { if (!$("system").hidden) this.#ask(); }, changed() {} }];
    $("level-form").addEventListener("submit", (event) => { event.preventDefault(); this.#setLevel(event.target.elements); });
    $("throttle-form").addEventListener("submit", (event) => { event.preventDefault(); this.#reset(event.target.elements); });
  }

  enter() {
    this.live.open({ kind: "processes" });
    this.#ask();
  }

  #ask() {
    this.#settings();
    this.#levels();
  }

  leave() {
    this.live.close();
  }

  async #settings() {
    try {
      const { limits, ...found } = await this.#socket.call("settings");
      const rows = Object.entries({ ...found, ...limits }).map(([name, value]) => {
        const shown = Array.isArray(value) ? value.join(", ") : value;
        return h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, shown === null || shown === "" ? "–" : String(shown)));
      });
      $("settings-list").replaceChildren(...rows);
    } catch (error) {
      if (error.code !== "not_connected") toast(error.message, true);
    }
  }

  async #levels() {
    try {
      this.#showLevels((await this.#socket.call("log_levels")).levels);
    } catch (error) {
      if (error.code !== "not_connected") toast(error.message, true);
    }
  }

  /** Loggers that have a level, each with the processes that have another one than the rest. */
  #showLevels(levels) {
    const loggers = new Map();
    for (const found of Object.values(levels))
      for (const [logger, level] of Object.entries(found)) {
        const counts = loggers.get(logger) ?? new Map();
        loggers.set(logger, counts.set(level, (counts.get(level) ?? 0) + 1));
      }
    const said = (counts) => (counts.size === 1 ? [...counts.keys()][0] : [...counts].map(([level, count]) => `${level} in ${number(count)}`).join(", "));
    $("levels-list").replaceChildren(...[...loggers].sort().map(([logger, counts]) => h("div", {}, h("dt", {}, h("code", {}, logger)), h("dd", {}, said(counts)))));
  }

  async #setLevel({ logger, level }) {
    try {
      const { levels } = await this.#socket.call("set_log_level", { logger: logger.value.trim(), level: level.value });
      this.#showLevels(levels);
      $("levels").textContent = `Set in ${Object.keys(levels).length} process${Object.keys(levels).length === 1 ? "" : "es"}.`;
    } catch (error) {
      $("levels").textContent = error.message;
    }
  }

  async #reset({ kind, who }) {
    try {
      const { reset } = await this.#socket.call("reset_throttles", { [kind.value]: who.value.trim() });
      $("reset").textContent = reset ? `${reset} forgotten.` : "Nothing was counted.";
    } catch (error) {
      $("reset").textContent = error.message;
    }
  }
}
