/**
 * Where the relay's clock stands, seen from here. Pure: all times are arguments, in milliseconds.
 *
 * Two questions with two answers: how the fastest message was under way (`fastestWayMs`, clock difference and network
 * together, which is what lateness is measured against), and what the relay's clock shows now (`relayNow`, from the
 * exchange with the shortest round trip, which is what a true delay is measured with).
 */

import { WindowMinimum } from "./window-minimum.js";
import { ahead } from "./wire.js";

/** Ten pings; longer, and the drift of the clocks (up to 200 ppm, 4 ms in 20 s) would count as delay. */
const WINDOW_MS = 20_000;

export class RelayClock {
  #fastest = new WindowMinimum(WINDOW_MS);
  /** @type {number | null} */
  #latestMs = null;
  /** @type {{atMs: number, roundTripMs: number, offsetMs: number}[]} */
  #exchanges = [];

  /** Forgets everything, because another relay or another start of it is at the other end. */
  restart() {
    this.#fastest.clear();
    this.#latestMs = null;
    this.#exchanges = [];
  }

  /** Arrival minus departure, at best; null before the first message. */
  get fastestWayMs() {
    return this.#fastest.value;
  }

  /**
   * Gives the time whose low 32 bits are `wireMs` and that is nearest to what was heard last.
   *
   * @param {number} wireMs
   */
  unwrap(wireMs) {
    this.#latestMs ??= wireMs;
    return this.#latestMs + ahead(wireMs, this.#latestMs);
  }

  /**
   * Notes a message that said when it left the relay.
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
   * Notes the answer to a ping.
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
   * What the relay's clock shows; null before the first answer.
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
