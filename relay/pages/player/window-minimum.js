/**
 * The minimum of the values in a time window. Pure. It holds at most one entry per value in the window.
 */

export class WindowMinimum {
  #windowMs;
  /**
   * Entries with rising values, oldest first. A new value removes the entries that are not less.
   *
   * @type {{value: number, atMs: number}[]}
   */
  #entries = [];

  /** @param {number} windowMs */
  constructor(windowMs) {
    this.#windowMs = windowMs;
  }

  /** The minimum, or null before the first value. Values expire only when another one is added. */
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
