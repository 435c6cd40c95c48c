// What the list looks like: what the server told, and on top of it what was asked for and has not been answered.

const inOrder = (one, other) => one.position - other.position || (one.id < other.id ? -1 : 1);

/** What each request will most likely do, to a map of id → task. */
const EFFECTS = {
  add(tasks, { id, text }) {
    const last = Math.max(0, ...[...tasks.values()].map((task) => task.position));
    tasks.set(id, { done: false, position: last + 1, ...tasks.get(id), id, text: text.trim() });
  },
  rename: (tasks, { id, text }) => change(tasks, id, { text: text.trim() }),
  check: (tasks, { id, done }) => change(tasks, id, { done }),
  remove: (tasks, { id }) => tasks.delete(id),
  move(tasks, { id, after }) {
    const others = [...tasks.values()].filter((task) => task.id !== id).sort(inOrder);
    const index = after === null ? 0 : others.findIndex((task) => task.id === after) + 1;
    const low = index > 0 ? others[index - 1].position : (others[0]?.position ?? 2) - 2;
    const high = others[index]?.position ?? low + 2;
    change(tasks, id, { position: (low + high) / 2 });
  },
};

function change(tasks, id, changes) {
  if (tasks.has(id)) tasks.set(id, { ...tasks.get(id), ...changes });
}

export class List {
  #known = new Map(); // id → the newest version that the server told
  #gone = new Set(); // ids never come back
  #touched = new Set(); // what was told since the list was asked for

  /** Before the list is asked for: what is told from here on is newer than the answer may be. */
  expect() {
    this.#touched.clear();
  }

  /** The answer: all tasks that there are. */
  reset(tasks) {
    const there = new Set(tasks.map((task) => task.id));
    for (const id of this.#known.keys()) {
      if (!there.has(id) && !this.#touched.has(id)) this.#known.delete(id);
    }
    this.update(tasks);
  }

  /** Tasks that were told, in whatever order. Returns the ids of those that are news. */
  update(tasks) {
    const news = [];
    for (const task of tasks) {
      this.#touched.add(task.id);
      if (this.#gone.has(task.id) || this.#known.get(task.id)?.version >= task.version) continue;
      this.#known.set(task.id, task);
      news.push(task.id);
    }
    return news;
  }

  remove(id) {
    this.#gone.add(id);
    this.#known.delete(id);
  }

  /** The tasks in their order, as they will be when the requests have been answered; `pending` where one has not. */
  show(requests) {
    const tasks = new Map(this.#known);
    const pending = new Set();
    for (const { action, data } of requests) {
      if (!(action in EFFECTS)) continue;
      EFFECTS[action](tasks, data);
      pending.add(data.id);
    }
    return [...tasks.values()].sort(inOrder).map((task) => ({ ...task, pending: pending.has(task.id) }));
  }
}
