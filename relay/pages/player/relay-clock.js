/**
 * Estimates the relay's clock. Pure: all times are arguments, in milliseconds.
 *
 * A new connection may lead to a relay with another clock. All times here are of the first relay's clock, and times of
 * later ones are converted: the greeting of the new relay counts as having come as fast as the fastest message before.
 * So times from before and after such a move can be compared, and the estimate continues. The conversion is wrong by as
 * much as the greeting was slower. This error is the same for all times of the new clock, so their differences are exact.
 *
 * `fastestWayMs` is the difference between arrival and departure of the fastest message: clock difference plus network.
 * It is the reference for lateness. `relayNow` is the present time on the relay's clock, from the exchange with the
 * shortest round trip. It serves to measure the true delay.
 */

import { WindowMinimum } from "./window-minimum.js";
import { ahead } from "./wire.js";

/** Ten pings. In a longer window, the drift of the clocks (up to 200 ppm, 4 ms in 20 s) would count as delay. */
const WINDOW_MS = 20_000;

/** If the relay's clock jumps by more than this, it is another clock, even if the relay does not say so. */
const SAME_CLOCK_MS = 1000;

export class RelayClock {
  #fastest = new WindowMinimum(WINDOW_MS);
  /** On the present relay's clock. @type {number | null} */
  #latestMs = null;
  /** The id of the present relay's clock, if the relay says it. @type {string | undefined} */
  #id = undefined;
  /** The present relay's clock minus the first one's, as far as the greeting shows it. */
  #aheadMs = 0;
  #moves = 0;
  /** @type {{atMs: number, move: number, roundTripMs: number, offsetMs: number}[]} */
  #exchanges = [];

  /** How many times the clock was replaced by another one. */
  get moves() {
    return this.#moves;
  }

  /** Arrival minus departure of the fastest message; null before the first message. */
  get fastestWayMs() {
    return this.#fastest.value;
  }

  /**
   * Returns the time with the low 32 bits `wireMs` that is nearest to the latest time heard, on the first relay's clock.
   *
   * @param {number} wireMs
   */
  unwrap(wireMs) {
    return this.#unwrap(wireMs) - this.#aheadMs;
  }

  /** @param {number} wireMs */
  #unwrap(wireMs) {
    this.#latestMs ??= wireMs;
    return this.#latestMs + ahead(wireMs, this.#latestMs);
  }

  /**
   * Records a greeting. If it is of another clock, times are of that clock from now on.
   *
   * @param {string | undefined} id The clock's id, if the relay says it.
   * @param {number} wireMs
   * @param {number} receivedMs
   */
  greet(id, wireMs, receivedMs) {
    const fastestMs = this.fastestWayMs;
    if (fastestMs !== null && this.#isOther(id, wireMs, receivedMs - fastestMs)) {
      this.#latestMs = wireMs;
      this.#aheadMs = wireMs - (receivedMs - fastestMs);
      this.#moves += 1;
    }
    this.#id = id;
    this.hear(wireMs, receivedMs);
  }

  /**
   * @param {string | undefined} id
   * @param {number} wireMs
   * @param {number} expectedMs The time that the present clock would show.
   */
  #isOther(id, wireMs, expectedMs) {
    const isSaid = id !== undefined && this.#id !== undefined && id !== this.#id;
    return isSaid || Math.abs(this.unwrap(wireMs) - expectedMs) > SAME_CLOCK_MS;
  }

  /**
   * Records a message that states when it left the relay.
   *
   * @param {number} wireMs
   * @param {number} receivedMs
   */
  hear(wireMs, receivedMs) {
    this.#latestMs = this.#unwrap(wireMs);
    const leftMs = this.unwrap(wireMs);
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
    const move = this.#moves;
    this.#exchanges = this.#exchanges.filter((old) => old.move === move && old.atMs > receivedMs - WINDOW_MS);
    this.#exchanges.push({ atMs: receivedMs, move, roundTripMs, offsetMs });
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
