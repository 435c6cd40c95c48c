// Who is in a group, from the notices and the action `presence`. A key is a person, each of its metas a window of theirs.

export class Present {
  /** Whether the server has said who is there, not only who came and went since. */
  isKnown = false;

  #windows = new Map(); // key → Set of refs

  /** Everybody who is there, by name. */
  get people() {
    return [...this.#windows]
      .map(([name, refs]) => ({ name, windows: refs.size }))
      .sort((one, other) => one.name.localeCompare(other.name));
  }

  /** Begin anew with what the action answered. */
  reset(members = {}) {
    this.isKnown = true;
    this.#windows.clear();
    this.apply({ joins: members });
  }

  /** Take in a notice. Returns who came and who left; whoever opens or closes a further window does neither. */
  apply({ joins = {}, leaves = {} }) {
    const before = new Set(this.#windows.keys());
    for (const [name, { metas }] of Object.entries(leaves)) {
      const refs = this.#windows.get(name);
      for (const { ref } of metas) refs?.delete(ref);
      if (refs?.size === 0) this.#windows.delete(name);
    }
    for (const [name, { metas }] of Object.entries(joins)) {
      if (!this.#windows.has(name)) this.#windows.set(name, new Set());
      for (const { ref } of metas) this.#windows.get(name).add(ref);
    }
    return {
      came: [...this.#windows.keys()].filter((name) => !before.has(name)),
      left: [...before].filter((name) => !this.#windows.has(name)),
    };
  }
}
