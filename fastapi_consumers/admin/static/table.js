// A table of rows that have keys. Rows stay the same elements while they change, so that focus and selection stay too.

import { dim, h, isDim, number, refocus } from "./dom.js";

export class Table {
  #columns;
  #rows = new Map();
  #items = new Map();
  #body;
  #place;

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
    const button = (label, call) => h("button", { type: "button", "aria-disabled": "true", onClick: ({ currentTarget }) => { if (!isDim(currentTarget)) call(); } }, label);
    this.first = button("First page", () => onFirst());
    this.more = button("Next page", () => onMore(this.next));
    this.foot = h("footer", { class: "foot" }, this.count, h("span", { class: "spacer" }), ...(onMore ? [this.first, this.more] : []));
    this.next = null;
    this.total = undefined;
    this.#place = place;
    place.append(this.note, h("div", { class: "scroller" }, this.element), this.empty, this.foot);
  }

  get items() {
    return [...this.#items.values()];
  }

  /** A page, whole. */
  show(page, isFirst = true) {
    this.#items = new Map(page.keys.map((key, index) => [key, page.rows[index]]));
    this.#keepingFocus(() => {
      dim(this.first, isFirst);
      this.#facts(page);
      for (const [key, row] of this.#rows) if (this.#items.has(key)) this.#fill(row, this.#items.get(key));
      this.#arrange(page.keys);
    });
  }

  /** What changed in it. */
  change(delta) {
    this.#keepingFocus(() => {
      for (const [key, fields] of Object.entries(delta.rows ?? {})) {
        const item = { ...this.#items.get(key), ...fields };
        for (const [name, value] of Object.entries(item)) if (value === null) delete item[name];
        this.#items.set(key, item);
        if (this.#rows.has(key)) this.#fill(this.#rows.get(key), item);
      }
      this.#facts(delta);
      if (delta.keys) this.#arrange(delta.keys);
    });
  }

  /** Show what changes by itself, such as how long ago something was. */
  refresh() {
    this.#keepingFocus(() => {
      for (const [key, row] of this.#rows) this.#fill(row, this.#items.get(key));
    });
  }

  /** Where its row is gone, the focus goes to the one that has come into its place. */
  #keepingFocus(draw) {
    const focused = this.#place.contains(document.activeElement) ? document.activeElement : null;
    const row = focused?.closest("tbody tr") ?? null;
    const index = row?.sectionRowIndex;
    draw();
    const { rows } = this.#body;
    refocus(focused, row === null || row.isConnected ? row : rows[Math.min(index, rows.length - 1)]);
  }

  #facts(page) {
    if ("next" in page) this.next = page.next;
    if ("total" in page) this.total = page.total;
    dim(this.more, this.next === null);
    this.first.hidden = this.more.hidden = isDim(this.first) && isDim(this.more);
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
    this.foot.hidden = keys.length === 0 && isDim(this.first);
    const shown = number(keys.length);
    this.count.textContent = keys.length === 0 ? "" : this.total === undefined || this.total === null ? `${shown} shown` : `${shown} of ${number(this.total)}`;
  }

  #fill(row, item) {
    this.#columns.forEach(({ show, isFixed }, index) => {
      const cell = row.children[index];
      if (isFixed && cell.hasChildNodes()) return;
      const content = show(item);
      // What looks the same does the same: it stays, and with it the focus and a press that has begun.
      if (content instanceof Node) {
        if (!(cell.childNodes.length === 1 && cell.firstChild.isEqualNode(content))) cell.replaceChildren(content);
      } else if (cell.textContent !== content) cell.textContent = content;
    });
  }
}
