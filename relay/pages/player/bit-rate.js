/** Measures the bit rate of received messages. Pure. */

/** Long enough to average messages of 0.1 s and packets of different sizes, and short enough to follow a switch. */
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
   * Returns bits per second since the first arrival in the window.
   *
   * @param {number} nowMs
   */
  at(nowMs) {
    this.#forget(nowMs);
    if (this.#arrivals.length < 2) {
      return 0;
    }
    // The first arrival opens the window. Its own bytes belong to the time before it.
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
