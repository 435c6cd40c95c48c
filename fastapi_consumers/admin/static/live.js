// A list that the server keeps up to date for as long as it is looked at.

import { toast } from "./dom.js";

export class Live {
  #socket;
  #id;
  #on;
  #request = null;
  #asked = 0;
  #isWaiting = false;

  /** `on` has `whole(page, request)` and `change(delta)`. */
  constructor(socket, id, on) {
    this.#socket = socket;
    this.#id = id;
    this.#on = on;
  }

  async open(request) {
    this.#request = request;
    const asked = ++this.#asked;
    this.#isWaiting = true;
    try {
      const page = await this.#socket.call("view", { id: this.#id, ...request });
      if (asked !== this.#asked) return;
      this.#isWaiting = false;
      this.#on.whole(page, request);
    } catch (error) {
      if (error.code !== "not_connected" && asked === this.#asked) toast(error.message, true);
    }
  }

  /** The socket is another one, which knows nothing of it. */
  again() {
    if (this.#request !== null) this.open(this.#request);
  }

  close() {
    if (this.#request === null) return;
    this.#request = null;
    this.#asked++;
    this.#isWaiting = true;
    this.#socket.call("hide", { id: this.#id }).catch(() => {});
  }

  changed(delta) {
    if (delta.id === this.#id && !this.#isWaiting) this.#on.change(delta);
  }
}

/** Calls it once the person has stopped for a moment. */
export function settled(call, milliseconds = 250) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, milliseconds);
  };
}
