// A metric on the page: its value, a gauge if it has a limit, and a line of the last minute. All drawn by hand, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const SPAN = 60; // seconds that the line shows
const WIDTH = 300;
const HEIGHT = 64;
const ARC = Math.PI * 40; // the length of the gauge's half circle

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export class Card {
  #metric;
  #points = []; // [time in seconds, value], the oldest first
  #value = make("span", { className: "value", textContent: "–" });
  #note = make("p", { className: "note" });
  #line = draw("path", { class: "stroke" });
  #area = draw("path", { class: "area" });
  #arc = draw("path", { class: "stroke", d: "M10 50a40 40 0 0 1 80 0" });
  #gauge = null;

  constructor(metric) {
    this.#metric = metric;
    const title = make("h2", { id: `title-${metric.name}`, textContent: metric.label });
    const reading = make("p", { className: "reading" }, this.#value);
    if (metric.unit) reading.append(" ", make("span", { className: "unit", textContent: metric.unit }));
    this.element = make("article", { className: "card" }, title, reading, this.#note);
    this.element.dataset.metric = metric.name;
    this.element.setAttribute("aria-labelledby", title.id);
    if (metric.limit !== null) this.element.append(this.#makeGauge());
    this.element.append(
      draw("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        this.#area, this.#line),
    );
  }

  #makeGauge() {
    const { high, label, limit } = this.#metric;
    const angle = Math.PI * (1 - limit / high);
    const at = (radius) => `${50 + radius * Math.cos(angle)} ${50 - radius * Math.sin(angle)}`;
    this.#gauge = draw("svg", {
      class: "gauge", viewBox: "0 0 100 56", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": high,
    },
      draw("path", { class: "track", d: "M10 50a40 40 0 0 1 80 0" }),
      this.#arc,
      draw("path", { class: "limit", d: `M${at(33)}L${at(47)}` }),
    );
    return this.#gauge;
  }

  /** What it knows from now on. */
  reset(points) {
    this.#points = points;
  }

  add(at, value) {
    if (at > (this.#points.at(-1)?.[0] ?? 0)) this.#points.push([at, value]);
  }

  /** @param now the time, in seconds, at the right end of the line. */
  show(now) {
    while (this.#points.length > 2 && this.#points[1][0] < now - SPAN) this.#points.shift();
    if (this.#points.length === 0) return;
    const { high, limit, unit } = this.#metric;
    const value = this.#points.at(-1)[1];
    const values = this.#points.map(([, each]) => each);
    const text = value.toLocaleString("en");
    this.#value.textContent = text;
    this.#note.textContent = `${Math.min(...values).toLocaleString("en")} to ${Math.max(...values).toLocaleString("en")} in the last minute`;
    this.element.classList.toggle("over", limit !== null && value > limit);
    if (this.#gauge !== null) {
      const part = Math.min(value / high, 1) * ARC;
      this.#arc.setAttribute("stroke-dasharray", `${part} ${2 * ARC}`);
      this.#gauge.setAttribute("aria-valuenow", value);
      this.#gauge.setAttribute("aria-valuetext", `${text} ${unit}`);
      if (value > limit) this.#note.textContent = `Above the limit of ${limit} ${unit}`;
    }
    this.#showLine(now, values);
  }

  #showLine(now, values) {
    const low = Math.min(...values);
    const range = Math.max(Math.max(...values) - low, this.#metric.high / 10);
    const x = (at) => (WIDTH * (1 - (now - at) / SPAN)).toFixed(1);
    const y = (value) => (HEIGHT - 4 - ((value - low) / range) * (HEIGHT - 8)).toFixed(1);
    const path = this.#points.map(([at, value]) => `${x(at)} ${y(value)}`).join("L");
    const [first, last] = [this.#points[0][0], this.#points.at(-1)[0]];
    this.#line.setAttribute("d", `M${path}`);
    this.#area.setAttribute("d", `M${x(first)} ${HEIGHT}L${path}L${x(last)} ${HEIGHT}Z`);
  }
}
