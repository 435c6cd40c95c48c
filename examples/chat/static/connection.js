// A WebSocket that comes back by itself, and requests that are paired with their replies.

const FIRST_DELAY = 500; // ms before the first attempt to come back; doubled for each further one …
const LONGEST_DELAY = 15_000; // … up to this.
const STABLE_AFTER = 5_000; // ms after which a connection has proved itself, so that delays begin anew.
const OPEN_TIMEOUT = 10_000;
const CALL_TIMEOUT = 8_000;
const HEARTBEAT = 25_000;

/** What a request was answered with, if it failed; `code` is stable, `message` is for people. */
export class CallError extends Error {
  constructor({ code, message = "", details = null, retry_after = null }) {
    super(message);
    this.code = code;
    this.details = details;
    this.retryAfter = retry_after;
  }
}

/**
 * Events, each a CustomEvent whose `detail` is given here:
 *
 * - `state`: {state, code, reason, error}. State is "connecting", "open", "waiting" (it will try again) or "closed"
 *   (it will not). Code, reason and the error that the server closed with, if it was one, are of the socket that just
 *   ended.
 * - `event`: {event, group, data, offset}, what the server sent; offset only in a group with history.
 * - `notice`: {type, …}, what the server says of a group: `joined`, `gap` or `presence`.
 * - `text`: a frame, if `raw`.
 * - `frame`: {sent, text}, whatever goes over the wire.
 */
export class Connection extends EventTarget {
  state = "closed";

  #url;
  #raw;
  #greeting;
  #heartbeat;
  #positions;
  #socket = null;
  #calls = new Map();
  #lastId = 0;
  #attempts = 0;
  #timer = 0;
  #beat = 0;
  #openedAt = null;
  #wasOpen = false;
  #error = null;
  #after = null; // seconds that the server asked to wait before one comes back, as it closes on purpose

  /**
   * @param url where to, `ws:` or `wss:`.
   * @param raw frames are plain text, without the protocol.
   * @param greeting the event that says that one is in. A socket that opens may still be refused.
   * @param heartbeat the action that is called now and then to learn of a connection that died without a sign.
   * @param positions group → {epoch, offset} of the last event that one has, in groups with history. Kept up to date
   *   here, and what the server is asked to go on from.
   */
  constructor(url, { raw = false, greeting = null, heartbeat = null, positions = new Map() } = {}) {
    super();
    this.#url = url;
    this.#raw = raw;
    this.#greeting = greeting;
    this.#heartbeat = heartbeat;
    this.#positions = positions;
  }

  open() {
    clearTimeout(this.#timer);
    this.#forget();
    this.#error = this.#after = null;
    this.#change("connecting");
    const url = new URL(this.#url);
    for (const [group, { epoch, offset }] of this.#positions) {
      url.searchParams.set(`recover.${group}`, `${epoch}:${offset}`);
    }
    const socket = (this.#socket = new WebSocket(url));
    socket.onopen = () => this.#greeting === null && this.#opened();
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#timer = setTimeout(() => this.#lost(0, "timeout"), OPEN_TIMEOUT);
  }

  /** End it for good. No events follow. */
  close() {
    clearTimeout(this.#timer);
    this.#forget();
    this.state = "closed";
  }

  /** Try now what would be tried later. */
  wake() {
    if (this.state === "waiting") this.open();
  }

  /** The device is offline: do not wait for the socket to notice. */
  drop() {
    if (this.state === "open" || this.state === "connecting") this.#lost(0, "offline");
  }

  /** Send plain text; false if there is no connection. */
  send(text) {
    if (this.state !== "open") return false;
    this.#socket.send(text);
    this.#emit("frame", { sent: true, text });
    return true;
  }

  /** Call an action. Resolves to the data of its reply, rejects with a `CallError`. */
  call(action, data, { timeout = CALL_TIMEOUT } = {}) {
    return new Promise((resolve, reject) => {
      const request_id = ++this.#lastId;
      if (!this.send(JSON.stringify({ action, request_id, data }))) {
        reject(new CallError({ code: "not_connected" }));
        return;
      }
      const timer = setTimeout(() => {
        this.#calls.delete(request_id);
        reject(new CallError({ code: "no_answer" }));
      }, timeout);
      this.#calls.set(request_id, { resolve, reject, timer });
    });
  }

  #receive(text) {
    this.#emit("frame", { sent: false, text });
    if (this.#raw) {
      this.#emit("text", text);
      return;
    }
    const frame = JSON.parse(text);
    if (frame.type === "reply") {
      const call = this.#calls.get(frame.request_id);
      if (call === undefined || frame.status === "partial") return;
      this.#calls.delete(frame.request_id);
      clearTimeout(call.timer);
      if (frame.status === "error") {
        this.#error = frame.error;
        call.reject(new CallError(frame.error));
      } else {
        call.resolve(frame.data);
      }
    } else if (frame.type === "event") {
      const position = this.#positions.get(frame.group);
      if (position !== undefined && frame.offset !== undefined) position.offset = frame.offset;
      if (frame.event === this.#greeting) this.#opened();
      this.#emit("event", frame);
    } else if (frame.type === "joined") {
      this.#positions.set(frame.group, { epoch: frame.epoch, offset: frame.offset });
      this.#emit("notice", frame);
    } else if (frame.type === "gap" || frame.type === "presence") {
      this.#emit("notice", frame);
    } else if (frame.type === "closing") {
      this.#after = frame.after;
    } else if (frame.type === "error") {
      this.#error = frame.error;
    }
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#openedAt = performance.now();
    this.#wasOpen = true;
    this.#error = null;
    if (this.#heartbeat !== null) {
      this.#beat = setInterval(() => {
        this.call(this.#heartbeat).catch((error) => error.code === "no_answer" && this.#lost(0, "no_answer"));
      }, HEARTBEAT);
    }
    this.#change("open");
  }

  #lost(code, reason) {
    clearTimeout(this.#timer);
    const stable = this.#openedAt !== null && performance.now() - this.#openedAt > STABLE_AFTER;
    this.#attempts = stable ? 1 : this.#attempts + 1;
    this.#forget();
    if (this.#isFinal(code, reason)) {
      this.#attempts = 0;
      this.#change("closed", { code, reason });
      return;
    }
    // Half of it by chance, so that not everybody comes back at the same moment. What the server says is by chance too.
    const backoff = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (this.#attempts - 1)) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.open(), this.#after !== null ? this.#after * 1000 : backoff);
    this.#change("waiting", { code, reason });
  }

  /** Whether the server meant it: a normal close, a broken rule, an error of its protocol. */
  #isFinal(code, reason) {
    // The place of somebody who comes back may still be taken by the connection that they just lost.
    if (code === 1013 && reason === "group_full") return !this.#wasOpen;
    return code === 1000 || code === 1008 || (code >= 4000 && code < 5000);
  }

  /** Let go of the socket, whatever state it is in. What waits for a reply will not get one. */
  #forget() {
    clearInterval(this.#beat);
    this.#openedAt = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new CallError({ code: "connection_lost" }));
    }
    this.#calls.clear();
  }

  #change(state, { code = null, reason = "" } = {}) {
    this.state = state;
    // An error that closes gives its code as the reason.
    const error = this.#error?.code === reason ? this.#error : null;
    this.#emit("state", { state, code, reason, error });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
