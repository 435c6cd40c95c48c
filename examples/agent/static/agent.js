// Questions over a WebSocket that comes back by itself, and answers that come in parts.

const FIRST_DELAY = 500; // ms before the first attempt to come back; doubled for each further one …
const LONGEST_DELAY = 10_000; // … up to this.

export class Agent {
  #url;
  #onState;
  #socket = null;
  #answers = new Map(); // request_id → {onPart, onEnd}
  #lastId = 0;
  #attempts = 0;
  #after = null;

  /** @param onState is called with "connecting", "open" or "waiting". */
  constructor(url, onState) {
    this.#url = url;
    this.#onState = onState;
    this.#open();
  }

  /**
   * @param onPart is called with each part of the answer.
   * @param onEnd is called once: with null when the answer is complete, otherwise with {code, message}.
   * @returns the id to cancel it by.
   */
  ask(question, { onPart, onEnd }) {
    const request_id = ++this.#lastId;
    if (this.#socket.readyState !== WebSocket.OPEN) {
      onEnd({ code: "not_connected", message: "There is no connection." });
      return request_id;
    }
    this.#answers.set(request_id, { onPart, onEnd });
    this.#socket.send(JSON.stringify({ action: "ask", request_id, data: { question } }));
    return request_id;
  }

  /** The answer ends with the error `cancelled`, unless it has just ended by itself. */
  cancel(request_id) {
    if (!this.#answers.has(request_id)) return;
    this.#socket.send(JSON.stringify({ action: "cancel", data: { request_id } }));
  }

  #open() {
    this.#onState("connecting");
    this.#after = null;
    this.#socket = new WebSocket(this.#url);
    this.#socket.onopen = () => {
      this.#attempts = 0;
      this.#onState("open");
    };
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = () => this.#lost();
  }

  #receive({ type, request_id, status, data, error, after }) {
    if (type === "closing") this.#after = after * 1000;
    const answer = this.#answers.get(request_id);
    if (type !== "reply" || answer === undefined) return;
    if (status === "partial") {
      answer.onPart(data);
    } else {
      this.#answers.delete(request_id);
      answer.onEnd(error ?? null);
    }
  }

  /** An answer that was being given ends with its connection: nobody else could be sent the rest. */
  #lost() {
    const answers = [...this.#answers.values()];
    this.#answers.clear();
    for (const { onEnd } of answers) onEnd({ code: "connection_lost", message: "The connection was lost." });
    // Half of it by chance, so that not everybody comes back at the same moment.
    const backoff = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    setTimeout(() => this.#open(), this.#after ?? backoff);
    this.#onState("waiting");
  }
}
