// Elements, and how values are shown. Text is only ever set as text.

export const $ = (id) => document.getElementById(id);

/** An element with properties, listeners (`onClick`) and children: text or elements; `null` is left out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const plain = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (value) => (value === undefined || value === null ? "–" : plain.format(value));

/** A rate, or any number that need not be exact. */
export function about(value) {
  if (value >= 10_000) return short.format(value);
  return plain.format(value >= 100 || Number.isInteger(value) ? Math.round(value) : Math.round(value * 10) / 10);
}

export function bytes(value) {
  if (value === undefined || value === null) return "–";
  if (value < 1024) return `${value} B`;
  return value < 1024 * 1024 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / 1024 / 1024).toFixed(1)} MiB`;
}

/** How long ago something was, in one word. */
export function ago(iso) {
  if (!iso) return "–";
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const clock = (milliseconds) =>
  new Date(milliseconds).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

let toastTimer;
export function toast(text, isBad = false) {
  const element = $("toast");
  element.textContent = text;
  element.classList.toggle("bad", isBad);
  element.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { element.hidden = true; }, 6000);
}

/** Dims a button that does nothing for now. It is not `disabled`: that would take the focus from who just pressed it. */
export const dim = (button, isDim) => button.setAttribute("aria-disabled", String(isDim));
export const isDim = (button) => button.getAttribute("aria-disabled") === "true";

const heading = () => document.querySelector("main > section:not([hidden]) > h2");
// What a control does there: a link its address, a button what it is marked with.
const markOf = (control) => control.dataset.mark ?? control.getAttribute("href");

/** After something was drawn anew: to what had the focus, or to what does the same in `place`, or first in it. */
export function refocus(focused, place) {
  if (focused === null) return;
  if (focused.isConnected && focused.getClientRects().length > 0) {
    if (document.activeElement !== focused) focused.focus({ preventScroll: true }); // It was moved.
    return;
  }
  const found = [...(place?.querySelectorAll("a[href], button, summary") ?? [])];
  const mark = markOf(focused);
  (found.find((control) => markOf(control) === mark) ?? found[0] ?? heading()).focus({ preventScroll: true });
}

/** Whether the person wants it. */
export function confirmed(title, text, verb) {
  const dialog = $("confirm");
  const opener = document.activeElement;
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = verb;
  dialog.returnValue = "no";
  dialog.showModal();
  $("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      // The browser gives the focus back to what opened it, unless that is gone by now.
      if (!opener.isConnected) refocus(opener, null);
      resolve(dialog.returnValue === "yes");
    }, { once: true });
  });
}
