/**
 * The least of the values of the last while. Pure; it holds at most one entry for each value in the window.
 */

export class WindowMinimum {
  #windowMs;
  /**
   * Entries whose values rise, oldest first: those that a newer and lesser one made useless are gone.
   *
   * @type {{value: number, atMs: number}[]}
   */
  #entries = [];

  /** @param {number} windowMs */
  constructor(windowMs) {
    this.#windowMs = windowMs;
  }

  /** The least value; null when there is none. It stays while nothing is added, however long that lasts. */
  get value() {
    return this.#entries[0]?.value ?? null;
  }

  /**
   * @param {number} value
   * @param {number} nowMs
   */
  add(value, nowMs) {
    const entries = this.#entries;
    while (entries.length > 0 && entries[entries.length - 1].value >= value) {
      entries.pop();
    }
    entries.push({ value, atMs: nowMs });
    while (entries[0].atMs < nowMs - this.#windowMs) {
      entries.shift();
    }
  }

  clear() {
    this.#entries = [];
  }
}
