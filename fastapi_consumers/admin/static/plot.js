// A line over time, drawn as SVG by hand: two paths and three lines of a grid. The page's CSS gives it its colours.

import { about, clock } from "./dom.js";

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 100;

function svg(tag, attributes) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The smallest of 1, 2 and 5 times a power of ten that is not below. */
export function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Plot {
  #points = [];
  #span;
  #isLarge;
  #unit;
  #label;
  #named = 0;

  /** `span`: seconds that are shown. A large one has a scale, and tells what the pointer is at. */
  constructor({ label, unit = "", span = 120, isLarge = false }) {
    this.#label = label;
    this.#unit = unit;
    this.#span = span;
    this.#isLarge = isLarge;
    this.element = document.createElement("div");
    this.element.className = isLarge ? "plot large" : "plot";
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.grid = svg("path", { class: "grid", d: isLarge ? `M0 0.5H${WIDTH}M0 50H${WIDTH}M0 99.5H${WIDTH}` : `M0 99.5H${WIDTH}` });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.drawing.append(this.grid, this.area, this.line);
    this.element.append(this.drawing);
    this.drawing.setAttribute("aria-label", label);
    if (isLarge) this.#addScale();
  }

  #addScale() {
    const make = (name) => {
      const element = document.createElement("span");
      element.className = name;
      element.setAttribute("aria-hidden", "true");
      this.element.append(element);
      return element;
    };
    this.high = make("tick high");
    this.middle = make("tick middle");
    make("tick low").textContent = "0";
    make("time start").textContent = "2 min ago";
    make("time end").textContent = "now";
    this.cursor = make("cursor");
    this.tip = make("tip");
    this.cursor.hidden = this.tip.hidden = true;
    this.drawing.addEventListener("pointermove", (event) => this.#point(event));
    this.drawing.addEventListener("pointerleave", () => { this.cursor.hidden = this.tip.hidden = true; });
  }

  #point(event) {
    const box = this.drawing.getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    const last = this.#points.at(-1);
    if (last === undefined) return;
    const wanted = last.at - (1 - part) * this.#span;
    const nearest = this.#points.reduce((one, other) => (Math.abs(other.at - wanted) < Math.abs(one.at - wanted) ? other : one));
    const x = 1 - (last.at - nearest.at) / this.#span;
    this.cursor.hidden = this.tip.hidden = false;
    for (const element of [this.cursor, this.tip]) element.style.setProperty("--x", `${x * 100}%`);
    this.tip.classList.toggle("left", x > 0.6);
    this.tip.textContent = `${about(nearest.value)}${this.#unit}, ${clock(nearest.at * 1000)}`;
  }

  /** A value at a time, in seconds. */
  add(at, value) {
    this.#points.push({ at, value });
    while (this.#points.length > 2 && this.#points[0].at < at - this.#span - 2) this.#points.shift();
  }

  clear() {
    this.#points = [];
  }

  draw() {
    const last = this.#points.at(-1);
    if (last === undefined) return;
    const most = Math.max(...this.#points.map((point) => point.value));
    const top = nice(most);
    const places = this.#points.map(({ at, value }) => {
      const x = WIDTH * (1 - (last.at - at) / this.#span);
      return `${x.toFixed(1)} ${(HEIGHT - (value / top) * (HEIGHT - 4) - 0.5).toFixed(1)}`;
    });
    const line = `M${places.join("L")}`;
    this.line.setAttribute("d", line);
    const first = Math.max(0, WIDTH * (1 - (last.at - this.#points[0].at) / this.#span));
    this.area.setAttribute("d", `${line}L${WIDTH} ${HEIGHT}L${first.toFixed(1)} ${HEIGHT}Z`);
    if (this.#isLarge) {
      this.high.textContent = about(top);
      this.middle.textContent = top === 1 ? "" : about(top / 2);
    }
    // Said now and then: nobody wants to be told each second.
    if (last.at - this.#named > 10) {
      this.#named = last.at;
      this.drawing.setAttribute("aria-label", `${this.#label}: ${about(last.value)}${this.#unit} now, at most ${about(most)} in two minutes`);
    }
  }
}
