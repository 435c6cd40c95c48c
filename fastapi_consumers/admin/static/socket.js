// One socket to the dashboard's consumer: requests with replies, events, and coming back after a loss.

const MAX_PAUSE = 8000;
const PATIENCE = 15000;

export class RequestError extends Error {
  constructor(error) {
    super(error.message);
    this.code = error.code;
    this.details = error.details;
  }
}

export class Socket {
  #url;
  #socket = null;
  #requests = new Map();
  #number = 0;
  #attempt = 0;
  #on;

  /** `on` has `open()`, `lost(reason)` and `event(name, data)`. */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    this.#connect();
    addEventListener("online", () => { if (this.#socket === null) this.#connect(); });
  }

  /** The reply's data. Rejects with a `RequestError`, also when the socket is lost before. */
  call(action, data = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN)
      return Promise.reject(new RequestError({ code: "not_connected", message: "Not connected." }));
    const id = ++this.#number;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, { error: { code: "timeout", message: "No answer came." } }), PATIENCE);
      this.#requests.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ action, request_id: id, data }));
    });
  }

  #settle(id, reply) {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#requests.delete(id);
    clearTimeout(request.timer);
    if (reply.error) request.reject(new RequestError(reply.error));
    else request.resolve(reply.data);
  }

  #connect() {
    const socket = (this.#socket = new WebSocket(this.#url, ["fc.v1.json"]));
    socket.addEventListener("open", () => {
      this.#attempt = 0;
      this.#on.open();
    });
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === "reply") this.#settle(frame.request_id, frame);
      else if (frame.type === "event") this.#on.event(frame.event, frame.data);
    });
    socket.addEventListener("close", ({ code }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      for (const id of [...this.#requests.keys()])
        this.#settle(id, { error: { code: "not_connected", message: "The connection was lost." } });
      this.#on.lost(code);
      // Jitter, so that all pages do not come back at once.
      const pause = Math.min(MAX_PAUSE, 500 * 2 ** this.#attempt++) * (0.5 + Math.random() / 2);
      setTimeout(() => { if (this.#socket === null) this.#connect(); }, pause);
    });
  }
}
