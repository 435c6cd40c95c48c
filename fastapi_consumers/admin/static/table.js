// A table of rows that have keys. Rows stay the same elements while they change, so that focus and selection stay too.

import { h, number } from "./dom.js";

export class Table {
  #columns;
  #rows = new Map();
  #items = new Map();
  #body;

  /** `columns`: `{ name, label, show(item) → text or element, className }`. */
  constructor(place, { caption, columns, empty, onMore, onFirst }) {
    this.#columns = columns;
    // In a narrow window rows become cards: what display does to them, the roles undo.
    this.#body = h("tbody", { role: "rowgroup" });
    const heads = columns.map(({ label, className, isHidden }) =>
      h("th", { scope: "col", role: "columnheader", class: className }, isHidden ? h("span", { class: "visually-hidden" }, label) : label));
    this.element = h("table", { role: "table" },
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)), this.#body);
    this.empty = h("p", { class: "empty", hidden: true }, empty);
    this.count = h("p", { class: "soft" });
    this.note = h("p", { class: "warning", hidden: true });
    this.first = h("button", { type: "button", onClick: onFirst, disabled: true }, "First page");
    this.more = h("button", { type: "button", onClick: () => onMore(this.next), disabled: true }, "Next page");
    this.foot = h("footer", { class: "foot" }, this.count, h("span", { class: "spacer" }), ...(onMore ? [this.first, this.more] : []));
    this.next = null;
    this.total = undefined;
    place.append(this.note, h("div", { class: "scroller" }, this.element), this.empty, this.foot);
  }

  get items() {
    return [...this.#items.values()];
  }

  /** A page, whole. */
  show(page, isFirst = true) {
    this.#items = new Map(page.keys.map((key, index) => [key, page.rows[index]]));
    this.first.disabled = isFirst;
    this.#facts(page);
    this.#arrange(page.keys);
  }

  /** What changed in it. */
  change(delta) {
    for (const [key, fields] of Object.entries(delta.rows ?? {})) {
      const item = { ...this.#items.get(key), ...fields };
      for (const [name, value] of Object.entries(item)) if (value === null) delete item[name];
      this.#items.set(key, item);
      if (this.#rows.has(key)) this.#fill(this.#rows.get(key), item);
    }
    this.#facts(delta);
    if (delta.keys) this.#arrange(delta.keys);
  }

  /** Show what changes by itself, such as how long ago something was. */
  refresh() {
    for (const [key, row] of this.#rows) this.#fill(row, this.#items.get(key));
  }

  #facts(page) {
    if ("next" in page) this.next = page.next;
    if ("total" in page) this.total = page.total;
    this.more.disabled = this.next === null;
    if (page.processes) {
      const { silent, errors } = page.processes;
      const broken = Object.keys(errors).length;
      this.note.hidden = silent + broken === 0;
      this.note.textContent = `${silent + broken} of ${silent + broken + page.processes.answered.length} processes did not answer; what they have is not here.`;
    }
  }

  #arrange(keys) {
    for (const key of this.#items.keys()) if (!keys.includes(key)) this.#items.delete(key);
    for (const [key, row] of [...this.#rows]) {
      if (this.#items.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    let before = this.#body.firstElementChild;
    for (const key of keys) {
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = h("tr", { role: "row" }, ...this.#columns.map(({ label, className }) => h("td", { role: "cell", "data-label": label, class: className })));
        this.#fill(row, this.#items.get(key));
      }
      if (row === before) before = before.nextElementSibling;
      else this.#body.insertBefore(row, before);
      this.#rows.delete(key);
      this.#rows.set(key, row);
    }
    this.element.hidden = keys.length === 0;
    this.empty.hidden = keys.length !== 0;
    this.foot.hidden = keys.length === 0 && this.first.disabled;
    const shown = number(keys.length);
    this.count.textContent = keys.length === 0 ? "" : this.total === undefined || this.total === null ? `${shown} shown` : `${shown} of ${number(this.total)}`;
  }

  #fill(row, item) {
    this.#columns.forEach(({ show, isFixed }, index) => {
      const cell = row.children[index];
      if (isFixed && cell.hasChildNodes()) return;
      const content = show(item);
      if (content instanceof Node) cell.replaceChildren(content);
      else if (cell.textContent !== content) cell.textContent = content;
    });
  }
}
