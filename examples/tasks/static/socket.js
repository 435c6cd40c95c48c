// A WebSocket that comes back by itself and goes on where it was, and a queue of requests that survives it.

const FIRST_DELAY = 500; // ms before the first attempt to come back; doubled for each further one …
const LONGEST_DELAY = 10_000; // … up to this.
const ANSWER_TIMEOUT = 8_000;
const RETRY_DELAY = 300;

/**
 * Events, each a CustomEvent whose `detail` is given here:
 *
 * - `state`: "connecting", "open", "waiting" (it will try again) or "offline" (not before it is told to).
 * - `reload`: whatever is known may be out of date; why: "first", "lost" or "gap".
 * - `recovered`: what was missed follows.
 * - `event`: {event, data}.
 * - `answered`, `rejected`: {request, data} or {request, error}: a request has left the queue.
 */
export class Connection extends EventTarget {
  /** Requests without an answer, in the order in which they were made: {request_id, action, data}. */
  requests = [];
  state = "offline";

  #url;
  #socket = null;
  #position = null; // {epoch, offset} of the last event that we have
  #lastId = 0;
  #attempts = 0;
  #isAsking = false; // whether the first of the requests was sent
  #timer = 0; // of the next attempt, of a request that is sent again, or of its answer
  #after = null;

  constructor(url) {
    super();
    this.#url = url;
  }

  open() {
    clearTimeout(this.#timer);
    this.#after = null;
    const url = new URL(this.#url);
    if (this.#position !== null) url.searchParams.set("recover", `${this.#position.epoch}:${this.#position.offset}`);
    this.#change("connecting");
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = () => this.#lost();
    this.#timer = setTimeout(() => this.#lost(), ANSWER_TIMEOUT);
  }

  /** Until it is opened again. What is requested meanwhile waits. */
  close() {
    this.#forget();
    this.#change("offline");
  }

  /** Ask for something. It is asked again, with the same id, until there is an answer: so it must do no harm twice. */
  request(action, data, { first = false } = {}) {
    const request = { request_id: ++this.#lastId, action, data };
    if (first) this.requests.unshift(request);
    else this.requests.push(request);
    this.#send();
  }

  /** One at a time: what is asked later may build on what was asked before. */
  #send() {
    if (this.state !== "open" || this.#isAsking || this.requests.length === 0) return;
    this.#isAsking = true;
    this.#socket.send(JSON.stringify(this.requests[0]));
    this.#timer = setTimeout(() => this.#lost(), ANSWER_TIMEOUT);
  }

  #receive(frame) {
    if (frame.type === "joined") {
      this.#joined(frame);
    } else if (frame.type === "event") {
      this.#position.offset = frame.offset;
      this.#emit("event", frame);
    } else if (frame.type === "gap") {
      this.#emit("reload", "gap");
    } else if (frame.type === "reply") {
      this.#answered(frame);
    } else if (frame.type === "closing") {
      this.#after = frame.after * 1000;
    }
  }

  #joined({ epoch, offset, recovered }) {
    const isFirst = this.#position === null;
    this.#position = { epoch, offset };
    if (this.state !== "open") {
      clearTimeout(this.#timer);
      this.#attempts = 0;
      this.#change("open");
    }
    if (recovered) this.#emit("recovered");
    else this.#emit("reload", isFirst ? "first" : "lost");
    this.#send();
  }

  #answered({ request_id, status, data, error }) {
    const index = this.requests.findIndex((request) => request.request_id === request_id);
    if (index < 0) return;
    clearTimeout(this.#timer);
    if (status === "error" && error.retryable) {
      // Until then it counts as being asked.
      this.#timer = setTimeout(() => {
        this.#isAsking = false;
        this.#send();
      }, (error.retry_after ?? 0) * 1000 + RETRY_DELAY);
      return;
    }
    this.#isAsking = false;
    const [request] = this.requests.splice(index, 1);
    if (status === "ok") this.#emit("answered", { request, data });
    else this.#emit("rejected", { request, error });
    this.#send();
  }

  #lost() {
    this.#forget();
    // Half of it by chance, so that not everybody comes back at the same moment.
    const backoff = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.open(), this.#after ?? backoff);
    this.#change("waiting");
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#isAsking = false;
    if (this.#socket === null) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #change(state) {
    this.state = state;
    this.#emit("state", state);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
