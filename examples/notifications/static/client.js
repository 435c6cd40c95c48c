// A WebSocket of the wire protocol that comes back by itself. Requests are paired with their replies.

const FINAL = new Set([1000, 1003, 1008, 1009, 4400, 4401, 4403, 4409]); // codes after which one stays away
const FIRST_DELAY = 500; // ms before the first attempt to come back; doubled for each further one …
const LONGEST_DELAY = 15_000; // … up to this.
const CALL_TIMEOUT = 8_000;

export class Client extends EventTarget {
  state = "closed"; // or "connecting", "open", "waiting"

  #url;
  #greeting;
  #offer;
  #positions = new Map(); // group → {epoch, offset}, where there is a history
  #socket = null;
  #calls = new Map();
  #lastId = 0;
  #delay = FIRST_DELAY;
  #after = null; // seconds that the server asked to wait
  #error = null;
  #timer = 0;

  /**
   * Dispatches `state` ({state, code, reason, error}), `event` and `notice`, the frames of the server.
   * @param greeting the event or the kind of notice that says that one is in: a socket that opens may still be refused.
   * @param offer called for what else to offer as subprotocols, such as a token.
   */
  constructor(path, { greeting, offer = () => [] }) {
    super();
    this.#url = new URL(path, location.href.replace(/^http/, "ws"));
    this.#greeting = greeting;
    this.#offer = offer;
    addEventListener("online", () => this.state === "waiting" && this.open());
    addEventListener("offline", () => this.#socket !== null && this.#lost({ code: 1006, reason: "offline" }));
  }

  open() {
    this.#forget();
    this.#error = this.#after = null;
    const url = new URL(this.#url);
    for (const [group, { epoch, offset }] of this.#positions) {
      url.searchParams.set(`recover.${group}`, `${epoch}:${offset}`);
    }
    this.#change("connecting");
    const socket = (this.#socket = new WebSocket(url, ["fc.v1.json", ...this.#offer()]));
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = (close) => this.#lost(close);
  }

  /** Call an action. Resolves to its reply's data, rejects with an Error that has the `code` of the protocol. */
  call(action, data) {
    return new Promise((resolve, reject) => {
      if (this.state !== "open") {
        reject(failure({ code: "not_connected", message: "There is no connection right now." }));
        return;
      }
      const request_id = ++this.#lastId;
      const timer = setTimeout(() => {
        this.#calls.delete(request_id);
        reject(failure({ code: "no_answer", message: "The server does not answer." }));
      }, CALL_TIMEOUT);
      this.#calls.set(request_id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ action, request_id, data }));
    });
  }

  #receive(frame) {
    if (frame.type === "reply") {
      const call = this.#calls.get(frame.request_id);
      this.#calls.delete(frame.request_id);
      clearTimeout(call?.timer);
      if (frame.status === "error") call?.reject(failure(frame.error));
      else call?.resolve(frame.data);
    } else if (frame.type === "error") {
      this.#error = frame.error;
    } else if (frame.type === "closing") {
      this.#after = frame.after;
    } else {
      const position = this.#positions.get(frame.group);
      if (frame.type === "joined") this.#positions.set(frame.group, { epoch: frame.epoch, offset: frame.offset });
      else if (position !== undefined && frame.offset !== undefined) position.offset = frame.offset;
      if (this.state === "connecting" && [frame.event, frame.type].includes(this.#greeting)) {
        this.#delay = FIRST_DELAY;
        this.#change("open");
      }
      this.#emit(frame.type === "event" ? "event" : "notice", frame);
    }
  }

  #lost({ code, reason }) {
    this.#forget();
    if (FINAL.has(code)) {
      this.#change("closed", { code, reason, error: this.#error });
      return;
    }
    // Half of it by chance, so that not everybody comes back at the same moment. What the server says is by chance too.
    const wait = this.#after !== null ? this.#after * 1000 : this.#delay * (0.5 + Math.random() / 2);
    this.#delay = Math.min(LONGEST_DELAY, this.#delay * 2);
    this.#timer = setTimeout(() => this.open(), wait);
    this.#change("waiting", { code, reason, error: this.#error });
  }

  /** Let go of the socket, whatever state it is in. What waits for a reply will not get one. */
  #forget() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(failure({ code: "connection_lost", message: "The connection was lost before the answer came." }));
    }
    this.#calls.clear();
  }

  #change(state, { code = null, reason = "", error = null } = {}) {
    this.state = state;
    this.#emit("state", { state, code, reason, error });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function failure({ code, message, retry_after = null }) {
  return Object.assign(new Error(message), { code, retryAfter: retry_after });
}
