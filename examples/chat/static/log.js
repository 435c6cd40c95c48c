// A conversation: lines in the order in which they came, and messages with an offset in the order of their offsets.
// Whatever is put in, what one is reading stays where it is.

import { make } from "./dom.js";

const NEAR = 80; // px from the end at which one follows what is said, and from the top at which older messages load
const LENGTH = 1_500; // lines; more than the messages that the server keeps

export class Log {
  element;
  /** Group → {epoch, offset}: what this conversation has, for the connection to come back with. */
  positions = new Map();
  /** Whether messages are missing that the server can give. */
  isStale = false;

  #lines;
  #older;
  #begin;
  #newer;
  #messages = new Map(); // offset → its line
  #epoch = null;
  #cursor = null;
  #whole = 0; // up to this offset nothing is missing, if it is stale
  #lastTop = 0;
  #follows = true; // what is said: one is at the end
  #load;

  /**
   * @param title of the room.
   * @param load called with a cursor to get older messages from, `null` for the newest, and whether somebody pressed a
   *   button for it; may return a promise. Without it the conversation has no past.
   */
  constructor(title, load = null) {
    this.#load = load;
    this.#lines = make("ol");
    this.#older = make("button", { type: "button", className: "older", hidden: true }, "Older messages");
    this.#begin = make("p", { className: "begin", hidden: true }, "Nothing older is kept.");
    this.#newer = make("button", { type: "button", className: "newer", hidden: true }, "New messages");
    const parts = [this.#older, this.#begin, this.#lines, this.#newer];
    this.element = make("div", { className: "log", tabIndex: 0 }, ...parts);
    this.element.setAttribute("role", "log");
    this.element.setAttribute("aria-label", `Conversation in ${title}`);
    this.#older.addEventListener("click", () => this.#loadOlder(true));
    this.#newer.addEventListener("click", () => this.#goToEnd());
    this.element.addEventListener("scroll", () => {
      const { scrollTop } = this.element;
      const hasFocus = document.activeElement === this.#older; // that it gets the focus is not to press it
      if (scrollTop < NEAR && scrollTop < this.#lastTop && !hasFocus) this.#loadOlder(false);
      this.#look();
    });
    new ResizeObserver(() => this.#follows && this.#goToEnd()).observe(this.element);
  }

  /** A line at the end, or a message in its place. False if the message is there already. */
  put(line, { offset = null, follow = false } = {}) {
    if (offset !== null && this.#messages.has(offset)) return false;
    this.#change(() => this.#insert(line, offset), follow);
    if (!this.#follows && line.classList.contains("said")) this.#newer.hidden = false;
    return true;
  }

  /** The server says where it stands: `whole` if what follows continues what is here. */
  joined(epoch, whole) {
    if (this.#epoch !== null && this.#epoch !== epoch) {
      // Offsets begin anew, and mean other messages.
      this.#change(() => this.#removeUpTo(Infinity));
      this.#cursor = null;
      this.isStale = false;
    }
    this.#epoch = epoch;
    if (!whole) this.missed();
  }

  /** Messages are missing after those that are here now. */
  missed() {
    if (!this.isStale) this.#whole = Math.max(0, ...this.#messages.keys());
    this.isStale = true;
  }

  /** The newest page of history. What is older is let go of if it does not reach that far. */
  showNewest({ results, next, epoch }, line) {
    if (epoch !== "" && this.#epoch !== epoch) return;
    const reaches = results.length === 0 || results.at(-1).offset <= this.#whole + 1;
    this.#change(() => {
      if (this.#whole > 0 && !reaches) this.#removeUpTo(this.#whole);
      if (this.#whole === 0 || !reaches) this.#cursor = next;
      for (const entry of results) this.#insert(line(entry), entry.offset);
      this.isStale = false;
      this.#showOlder();
    });
  }

  /** A page of what was said before. False if it is of another life of the group. */
  showOlder({ results, next, epoch }, line) {
    if (this.#epoch !== epoch) return false;
    this.#change(() => {
      for (const entry of results) this.#insert(line(entry), entry.offset);
      this.#cursor = next;
      this.#showOlder();
    });
    return true;
  }

  /** What is missing could not be loaded: leave it to the visitor to try again. */
  failed() {
    this.#showOlder();
  }

  /** It was hidden: show the end. */
  show() {
    this.element.hidden = false;
    this.#goToEnd();
  }

  async #loadOlder(pressed) {
    if (this.#older.hidden || this.element.ariaBusy === "true") return;
    this.element.ariaBusy = "true";
    this.#older.textContent = "Loading…";
    try {
      await this.#load(this.isStale ? null : this.#cursor, pressed);
    } finally {
      this.element.ariaBusy = "false";
      this.#older.textContent = "Older messages";
    }
  }

  #showOlder() {
    const hadFocus = document.activeElement === this.#older;
    this.#older.hidden = this.#cursor === null && !this.isStale;
    this.#begin.hidden = !this.#older.hidden || this.#messages.size === 0;
    if (hadFocus && this.#older.hidden) this.element.focus({ preventScroll: true });
  }

  #insert(line, offset) {
    let before = null;
    if (offset !== null) {
      if (this.#messages.has(offset)) return;
      this.#messages.set(offset, line);
      line.dataset.offset = offset;
      for (let other = this.#lines.lastElementChild; other !== null; other = other.previousElementSibling) {
        if (other.dataset.offset === undefined) continue;
        if (Number(other.dataset.offset) < offset) break;
        before = other;
      }
    }
    this.#lines.insertBefore(line, before);
  }

  /** Remove all lines up to the message of this offset. */
  #removeUpTo(offset) {
    for (const line of [...this.#lines.children]) {
      if (Number(line.dataset.offset) > offset) break;
      this.#remove(line);
    }
  }

  #remove(line) {
    if (line.dataset.offset !== undefined) this.#messages.delete(Number(line.dataset.offset));
    line.remove();
  }

  #change(change, follow = false) {
    const log = this.element;
    const follows = follow || this.#follows;
    const top = log.getBoundingClientRect().top;
    const anchor = [...this.#lines.children].find((line) => line.getBoundingClientRect().bottom > top);
    const place = anchor?.getBoundingClientRect().top;
    change();
    if (follows) {
      while (this.#lines.childElementCount > LENGTH) this.#remove(this.#lines.firstElementChild);
      this.#goToEnd();
    } else if (anchor?.isConnected) {
      log.scrollTop += anchor.getBoundingClientRect().top - place;
    }
    this.#look();
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    this.#lastTop = scrollTop;
    this.#follows = scrollHeight - scrollTop - clientHeight < NEAR;
    if (!this.#follows || this.#newer.hidden) return;
    if (document.activeElement === this.#newer) this.element.focus({ preventScroll: true });
    this.#newer.hidden = true;
  }

  #goToEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }
}
