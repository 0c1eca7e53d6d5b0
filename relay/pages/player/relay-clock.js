/**
 * Estimates the relay's clock. Pure: all times are arguments, in milliseconds.
 *
 * `fastestWayMs` is the difference between arrival and departure of the fastest message: clock difference plus network.
 * It is the reference for lateness. `relayNow` is the present time on the relay's clock, from the exchange with the
 * shortest round trip. It serves to measure the true delay.
 */

import { WindowMinimum } from "./window-minimum.js";
import { ahead } from "./wire.js";

/** Ten pings. In a longer window, the drift of the clocks (up to 200 ppm, 4 ms in 20 s) would count as delay. */
const WINDOW_MS = 20_000;

export class RelayClock {
  #fastest = new WindowMinimum(WINDOW_MS);
  /** @type {number | null} */
  #latestMs = null;
  /** @type {{atMs: number, roundTripMs: number, offsetMs: number}[]} */
  #exchanges = [];

  /** Forgets everything, for a connection to another relay or to a restarted one. */
  restart() {
    this.#fastest.clear();
    this.#latestMs = null;
    this.#exchanges = [];
  }

  /** Arrival minus departure of the fastest message; null before the first message. */
  get fastestWayMs() {
    return this.#fastest.value;
  }

  /**
   * Returns the time with the low 32 bits `wireMs` that is nearest to the latest time heard.
   *
   * @param {number} wireMs
   */
  unwrap(wireMs) {
    this.#latestMs ??= wireMs;
    return this.#latestMs + ahead(wireMs, this.#latestMs);
  }

  /**
   * Records a message that states when it left the relay.
   *
   * @param {number} wireMs
   * @param {number} receivedMs
   */
  hear(wireMs, receivedMs) {
    const leftMs = this.unwrap(wireMs);
    this.#latestMs = leftMs;
    this.#fastest.add(receivedMs - leftMs, receivedMs);
  }

  /**
   * Records the answer to a ping.
   *
   * @param {number} sentMs
   * @param {number} wireMs
   * @param {number} receivedMs
   */
  exchange(sentMs, wireMs, receivedMs) {
    this.hear(wireMs, receivedMs);
    const roundTripMs = receivedMs - sentMs;
    const offsetMs = this.unwrap(wireMs) - (sentMs + receivedMs) / 2;
    this.#exchanges = this.#exchanges.filter(({ atMs }) => atMs > receivedMs - WINDOW_MS);
    this.#exchanges.push({ atMs: receivedMs, roundTripMs, offsetMs });
  }

  /**
   * Returns the present time on the relay's clock, or null before the first answer.
   *
   * @param {number} nowMs
   * @returns {number | null}
   */
  relayNow(nowMs) {
    if (this.#exchanges.length === 0) {
      return null;
    }
    const best = this.#exchanges.reduce((a, b) => (b.roundTripMs < a.roundTripMs ? b : a));
    return nowMs + best.offsetMs;
  }
}
