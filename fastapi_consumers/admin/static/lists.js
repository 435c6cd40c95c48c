// Connections, groups and processes: lists that can be searched.

import { $, ago, bytes, confirmed, h, number, refocus, toast } from "./dom.js";
import { Live, settled } from "./live.js";
import { Table } from "./table.js";

const code = (text) => h("code", {}, text);

/** Runs a command, and tells what became of it. */
export async function run(work, done) {
  try {
    await work();
    if (done) toast(done);
  } catch (error) {
    toast(error.message, true);
  }
}

class Searched {
  /** `kind`: of the view; `section`: where its form and table are. */
  constructor(socket, kind, columns, words) {
    this.socket = socket;
    this.kind = kind;
    this.form = $(kind).querySelector("form.tools");
    this.request = { kind, limit: 50 };
    this.isFirst = true;
    this.table = new Table($(`${kind}-list`), {
      ...words,
      columns,
      onMore: (cursor) => this.show(cursor),
      onFirst: () => this.show(null),
    });
    this.live = new Live(socket, kind, {
      whole: (page, request) => { this.table.show(page, !request.cursor); this.shown(); },
      change: (delta) => { this.table.change(delta); this.shown(); },
    });
    this.lives = [this.live];
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.show(null); });
    this.form.elements.search.addEventListener("input", settled(() => this.show(null)));
    this.form.elements.order.addEventListener("change", () => this.show(null));
  }

  show(cursor) {
    const { search, order } = this.form.elements;
    const request = { ...this.request, order: order.value };
    if (search.value.trim()) request.search = search.value.trim();
    if (cursor) request.cursor = cursor;
    this.live.open(request);
  }

  shown() {}

  leave() {
    this.live.close();
  }
}

export class Connections extends Searched {
  constructor(socket) {
    super(socket, "connections", [
      { label: "User", className: "main", show: ({ user }) => (user === undefined ? h("span", { class: "soft" }, "anonymous") : h("a", { href: `#/connections/user/${encodeURIComponent(user)}` }, user)) },
      { label: "Address", show: ({ address }) => address || "–" },
      { label: "Consumer", show: ({ consumer, path }) => h("span", { title: path }, consumer), isFixed: true },
      { label: "Groups", className: "groups", show: ({ groups, group_count: count }) => groupsOf(groups, count) },
      { label: "Since", className: "right", show: ({ opened_at: at }) => ago(at) },
      { label: "Last seen", className: "right seen", show: ({ last_seen: at }) => ago(at) },
      { label: "Sent", className: "right", show: ({ sent, sent_bytes: size }) => (size === undefined ? number(sent) : `${number(sent)} · ${bytes(size)}`) },
      { label: "Waiting", className: "right", show: ({ queued, dropped }) => (dropped ? `${number(queued)}, ${number(dropped)} dropped` : number(queued)) },
      { label: "Disconnect", isHidden: true, className: "actions", show: (item) => this.#button(item) },
    ], { caption: "Open connections", empty: "No connection is like this." });
  }

  enter(filter, value) {
    this.request = { kind: "connections", limit: 50 };
    const isFiltered = (filter === "group" || filter === "user") && Boolean(value);
    if (isFiltered) this.request[filter] = value;
    const place = $("connections-filter");
    const focused = place.contains(document.activeElement) ? document.activeElement : null;
    place.hidden = !isFiltered;
    place.replaceChildren(...(isFiltered ? this.#filter(filter, value) : []));
    refocus(focused, place);
    this.show(null);
  }

  #filter(filter, value) {
    const disconnect = () => run(async () => {
      const text = `Every connection ${filter === "user" ? "of" : "in"} ${value} is closed with code 4409, in all processes. Clients may come back.`;
      if (!(await confirmed("Disconnect all?", text, "Disconnect all"))) return;
      await this.socket.call("disconnect", { [filter]: value });
      toast(`All of ${value} are being disconnected.`);
    });
    return [
      h("span", {}, filter === "user" ? "Of the user " : "In the group ", code(value)),
      h("a", { href: "#/connections" }, "Show all connections"),
      h("button", { type: "button", class: "small", "aria-label": `Disconnect all of ${value}`, onClick: disconnect }, "Disconnect all"),
    ];
  }

  shown() {
    // It is counted only where somebody wants it.
    const isCounted = this.table.items.some((item) => item.last_seen !== undefined);
    this.table.element.classList.toggle("uncounted", !isCounted);
  }

  #button({ channel, user }) {
    const who = user ?? "the anonymous connection";
    const click = () => run(async () => {
      if (!(await confirmed("Disconnect?", `${who} (${channel}) is closed with code 4409. Its client may come back.`, "Disconnect"))) return;
      await this.socket.call("disconnect", { channel });
      toast(`${who} is being disconnected.`);
    });
    return h("button", { type: "button", class: "small", "data-mark": "disconnect", "aria-label": `Disconnect ${who}, ${channel}`, onClick: click }, "Disconnect");
  }
}

function groupsOf(groups, count) {
  if (count === 0) return "–";
  const links = groups.slice(0, 3).flatMap((name, index) => [index ? " " : null, h("a", { href: `#/console/${encodeURIComponent(name)}` }, name)]);
  return h("span", {}, ...links, count > 3 ? h("span", { class: "soft" }, ` and ${count - Math.min(groups.length, 3)} more`) : null);
}

export class Groups extends Searched {
  constructor(socket) {
    super(socket, "groups", [
      { label: "Group", className: "main", isFixed: true, show: ({ name }) => h("a", { href: `#/console/${encodeURIComponent(name)}` }, name) },
      { label: "Connections", className: "right", show: ({ connections }) => number(connections) },
      { label: "Actions", isHidden: true, className: "actions", isFixed: true, show: (item) => this.#actions(item) },
    ], { caption: "Groups that have connections", empty: "No group is like this." });
  }

  enter() {
    this.show(null);
  }

  #actions({ name }) {
    const click = () => run(async () => {
      if (!(await confirmed("Disconnect all?", `Every connection in ${name} is closed with code 4409.`, "Disconnect all"))) return;
      await this.socket.call("disconnect", { group: name });
      toast(`All of ${name} are being disconnected.`);
    });
    return h("span", { class: "buttons" },
      h("a", { class: "button small", href: `#/connections/group/${encodeURIComponent(name)}`, "aria-label": `Connections in ${name}` }, "Connections"),
      h("button", { type: "button", class: "small", "data-mark": "disconnect", "aria-label": `Disconnect all of ${name}`, onClick: click }, "Disconnect all"));
  }
}
