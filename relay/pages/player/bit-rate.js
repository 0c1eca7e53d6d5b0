/** How much comes over the network. Pure. */

/** Long enough for messages of 0.1 s and for packets of various sizes, short enough to follow a switch. */
const WINDOW_MS = 4000;

export class BitRate {
  /** @type {{atMs: number, bytes: number}[]} */
  #arrivals = [];

  /**
   * @param {number} bytes
   * @param {number} nowMs
   */
  add(bytes, nowMs) {
    this.#arrivals.push({ atMs: nowMs, bytes });
    this.#forget(nowMs);
  }

  /**
   * Bits a second, in the window or since the first arrival in it.
   *
   * @param {number} nowMs
   */
  at(nowMs) {
    this.#forget(nowMs);
    if (this.#arrivals.length < 2) {
      return 0;
    }
    // The first arrival opens the window, and what it brought belongs to the time before.
    const [first, ...others] = this.#arrivals;
    const bytes = others.reduce((sum, arrival) => sum + arrival.bytes, 0);
    return (8000 * bytes) / Math.max(1, nowMs - first.atMs);
  }

  /** @param {number} nowMs */
  #forget(nowMs) {
    while (this.#arrivals.length > 0 && this.#arrivals[0].atMs < nowMs - WINDOW_MS) {
      this.#arrivals.shift();
    }
  }
}
