// The little that is needed to make elements.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** When something was said: the time, and the day unless it was today. */
export function when(at = new Date()) {
  const time = { hour: "2-digit", minute: "2-digit" };
  const isToday = at.toDateString() === new Date().toDateString();
  const text = isToday
    ? at.toLocaleTimeString([], time)
    : at.toLocaleString([], { day: "numeric", month: "short", ...time });
  return make("time", { dateTime: at.toISOString() }, text);
}
