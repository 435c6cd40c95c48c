// What a group is told, and a way to tell it something.

import { $, clock, confirmed, dim, h, isDim, number, toast } from "./dom.js";

const MAX_LINES = 300;

export class Console {
  #socket;
  #group = null;
  #isHeld = false;
  #held = 0;
  #before = null;
  #skipped = 0;

  constructor(socket) {
    this.#socket = socket;
    $("watch-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const group = event.target.elements.group.value.trim();
      const hash = `#/console/${encodeURIComponent(group)}`;
      if (location.hash === hash) this.#watch(group);
      else location.hash = hash;
    });
    $("send-form").addEventListener("submit", (event) => { event.preventDefault(); this.#send(); });
    $("hold").addEventListener("click", () => this.#hold(!this.#isHeld));
    $("clear").addEventListener("click", () => {
      $("log").replaceChildren();
      this.#before = null;
      dim($("older"), false);
      this.#facts();
    });
    $("older").addEventListener("click", () => { if (!isDim($("older"))) this.#older(); });
    $("purge").addEventListener("click", () => this.#purge());
    $("who").addEventListener("click", () => this.#who());
    this.lives = [{ again: () => { if (this.#group !== null) this.#watch(this.#group); }, changed() {} }];
    $("watch-form").elements.group.addEventListener("focus", () => this.#suggest());
  }

  enter(group) {
    if (group) {
      $("watch-form").elements.group.value = group;
      if (group !== this.#group) this.#watch(group);
    }
  }

  leave() {
    const group = this.#group;
    this.#group = null;
    $("watching").hidden = true;
    if (group !== null) this.#socket.call("unwatch", { group }).catch(() => {});
  }

  async #suggest() {
    try {
      const page = await this.#socket.call("view", { id: "suggested", kind: "groups", order: "size", limit: 20 });
      $("known-groups").replaceChildren(...page.keys.map((name) => h("option", { value: name })));
      await this.#socket.call("hide", { id: "suggested" });
    } catch {} // Nobody has asked for it.
  }

  async #watch(group) {
    if (this.#group !== null && this.#group !== group) {
      this.#socket.call("unwatch", { group: this.#group }).catch(() => {});
      $("log").replaceChildren();
    }
    if (this.#group !== group) this.#members(null);
    this.#group = group;
    try {
      const found = await this.#socket.call("watch", { group });
      if (this.#group !== group) return;
      this.connections = found.connections;
      this.#before = null;
      this.#skipped = 0;
      $("older").hidden = $("kept").hidden = found.history === null;
      $("kept-facts").textContent = found.history ?? "";
      dim($("older"), false);
      $("watching").hidden = false;
      this.#hold(false);
    } catch (error) {
      if (error.code === "not_connected") return; // Once it is, it is asked again.
      this.#group = null;
      $("watching").hidden = true;
      toast(error.message, true);
    }
  }

  watched(message) {
    if (message.group !== this.#group) return;
    if (this.#isHeld) {
      this.#held++;
      this.#facts();
      return;
    }
    const log = $("log");
    const box = $("log-box");
    const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    log.append(line(message));
    while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
    if (isAtEnd) box.scrollTop = box.scrollHeight;
    this.#facts();
  }

  skipped({ group, count }) {
    if (group === this.#group) {
      this.#skipped += count;
      this.#facts();
    }
  }

  #hold(isHeld) {
    this.#isHeld = isHeld;
    this.#held = 0;
    $("hold").setAttribute("aria-pressed", String(isHeld));
    $("hold").textContent = isHeld ? "Go on" : "Pause";
    this.#facts();
  }

  #facts() {
    const facts = [`${number(this.connections)} connection${this.connections === 1 ? "" : "s"}`];
    if (this.#skipped) facts.push(`${number(this.#skipped)} not shown: more than 20 a second`);
    if (this.#isHeld) facts.push(`paused, ${number(this.#held)} came since`);
    $("log-facts").textContent = facts.join(" · ");
    $("log-empty").hidden = $("log").childElementCount > 0;
  }

  async #older() {
    const group = this.#group;
    try {
      const page = await this.#socket.call("history", { group, limit: 20, ...(this.#before ? { before: this.#before } : {}) });
      if (group !== this.#group) return;
      const lines = page.results.map(({ event, data, offset, at }) => line({
        kind: "text", at: Date.parse(at) / 1000, text: JSON.stringify({ type: "event", event, data, offset }), isPast: true,
      }));
      $("log").prepend(...lines.reverse());
      this.#before = page.next;
      dim($("older"), page.next === null);
      this.#facts();
      if (lines.length === 0) toast("Its history is empty.");
    } catch (error) {
      toast(error.message, true);
    }
  }

  async #purge() {
    const group = this.#group;
    const text = `What the history of ${group} keeps is forgotten, for everybody. Who comes back after a loss cannot be sent what was missed.`;
    if (!(await confirmed("Forget the history?", text, "Forget it"))) return;
    try {
      await this.#socket.call("purge", { group });
      toast(`The history of ${group} is forgotten.`);
      if (group !== this.#group) return;
      for (const past of $("log").querySelectorAll(".past")) past.remove();
      this.#before = null;
      dim($("older"), false);
      this.#facts();
    } catch (error) {
      toast(error.message, true);
    }
  }

  async #who() {
    const group = this.#group;
    try {
      const found = await this.#socket.call("presence", { group });
      if (group === this.#group) this.#members(found);
    } catch (error) {
      toast(error.message, true);
    }
  }

  /** Who is in the group; `null` is said of one that nobody has asked about. */
  #members(found) {
    const keys = Object.entries(found?.members ?? {});
    $("who").textContent = found === null ? "Show who is here" : "Look again";
    $("who-count").textContent = found === null ? "Who is in the group, by presence."
      : found.count === 0 ? "Nobody is here, or the group has no presence."
      : keys.length < found.count ? `${number(found.count)} are here, of whom these are the first:` : `${number(found.count)} ${found.count === 1 ? "is" : "are"} here:`;
    $("who-list").replaceChildren(...keys.map(([key, { metas }]) =>
      h("li", {}, key, metas.length > 1 ? h("span", { class: "soft" }, ` ${number(metas.length)} connections`) : null)));
    $("who-list").hidden = keys.length === 0;
  }

  async #send() {
    const { event, data } = $("send-form").elements;
    const problem = $("send-error");
    problem.textContent = "";
    data.removeAttribute("aria-invalid");
    let value = null;
    try {
      value = data.value.trim() === "" ? null : JSON.parse(data.value);
    } catch (error) {
      problem.textContent = `This is not JSON: ${error.message}`;
      data.setAttribute("aria-invalid", "true");
      data.focus();
      return;
    }
    try {
      const { position } = await this.#socket.call("send", { group: this.#group, event: event.value, data: value });
      $("sent").textContent = position === null ? `Sent at ${clock(Date.now())}.` : `Sent at ${clock(Date.now())}, offset ${position.offset}.`;
    } catch (error) {
      problem.textContent = error.message;
    }
  }
}

function line({ kind, text, size, at, isPast }) {
  let name = kind;
  let shown = text;
  if (kind === "text") {
    try {
      const frame = JSON.parse(text);
      if (frame.type === "event") {
        name = frame.event;
        shown = JSON.stringify(frame.data);
        if (frame.offset !== undefined) name += ` #${frame.offset}`;
      } else if (frame.type) {
        name = frame.type;
        const { type, group, ...rest } = frame;
        shown = JSON.stringify(rest);
      }
    } catch {} // Cut off, or not JSON at all: it is shown as it is.
  }
  const rest = size !== undefined && size > 1000 ? h("span", { class: "soft" }, ` … ${number(size)} bytes`) : null;
  return h("li", { class: isPast ? "past" : null },
    h("time", {}, clock(at * 1000)), h("strong", {}, name), h("code", {}, shown, rest));
}
