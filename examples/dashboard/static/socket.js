// A WebSocket that comes back by itself, and an action that is asked now and then.

const FIRST_DELAY = 500; // ms before the first attempt to come back; doubled for each further one …
const LONGEST_DELAY = 10_000; // … up to this.
const ASK_EVERY = 1_000;
const SILENCE = 20_000; // ms without a frame after which the line is taken for dead.

/**
 * @param url where to.
 * @param action what to ask for, a moment after the last answer.
 * @param handlers onState("connecting" | "open" | "waiting"), onEvent(event, data), onAnswer(data).
 * @returns a function that ends it; nothing is called after that.
 */
export function connect(url, action, { onState, onEvent, onAnswer }) {
  let socket, retry, ask, watch, attempts = 0, requestId = 0, after = null;

  function open() {
    onState("connecting");
    after = null;
    socket = new WebSocket(url);
    socket.onmessage = ({ data }) => receive(JSON.parse(data));
    socket.onclose = lost;
    listen();
  }

  function receive(frame) {
    listen();
    if (frame.type === "event") {
      if (frame.event === "welcome") {
        attempts = 0;
        onState("open");
        request();
      }
      onEvent(frame.event, frame.data);
    } else if (frame.type === "reply" && frame.request_id === requestId) {
      if (frame.status === "ok") onAnswer(frame.data);
      ask = setTimeout(request, ASK_EVERY);
    } else if (frame.type === "closing") {
      after = frame.after * 1000;
    }
  }

  function request() {
    socket.send(JSON.stringify({ action, request_id: ++requestId }));
  }

  /** It is a board that never rests: if it does, nobody is there. */
  function listen() {
    clearTimeout(watch);
    watch = setTimeout(lost, SILENCE);
  }

  function lost() {
    end();
    // Half of it by chance, so that not everybody comes back at the same moment.
    const backoff = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** attempts++) * (0.5 + Math.random() / 2);
    retry = setTimeout(open, after ?? backoff);
    onState("waiting");
  }

  function end() {
    for (const timer of [retry, ask, watch]) clearTimeout(timer);
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  open();
  return end;
}
