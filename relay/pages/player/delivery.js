/**
 * How long the relay may gather frames for one message. Pure.
 *
 * Fewer messages mean fewer wake-ups for the relay and for a phone, and packets in one message share its header. The
 * player's own delay hides the wait for them. The player asks for a quarter of the preset's minimum delay, but never
 * for more than the part of that delay that the network does not need.
 */

import { FLOORS_MS } from "./target-delay.js";

const PART_OF_FLOOR = 1 / 4;

/** The duration of most frames. */
const STEP_MS = 20;

/** The most that a relay grants for packets. */
const MOST_MS = 100;

/** Three packets of 20 ms, which save a large part of the headers in a stream of 24 kb/s. */
const SAVING_PACKET_MS = 60;

/** The network must leave room for this long before the player asks for more gathering. It asks for less at once. */
const RISE_AFTER_MS = 10_000;

export class Delivery {
  #floorMs;
  #saveData;
  #networkMs = 0;
  #coalesceMs;
  /** @type {number | null} */
  #roomSinceMs = null;

  /**
   * @param {import("./types.js").Latency} latency
   * @param {boolean} saveData
   */
  constructor(latency, saveData) {
    this.#floorMs = FLOORS_MS[latency];
    this.#saveData = saveData;
    this.#coalesceMs = this.#hiddenMs;
  }

  /** The request to the relay, as members of a query or of a `delivery` message. */
  get wanted() {
    const packetMs = this.#saveData ? Math.max(SAVING_PACKET_MS, this.#coalesceMs) : this.#coalesceMs;
    return { coalesce_ms: this.#coalesceMs, packet_ms: packetMs };
  }

  /** @param {import("./types.js").Latency} latency */
  setLatency(latency) {
    this.#floorMs = FLOORS_MS[latency];
    this.#coalesceMs = this.#hiddenMs;
    this.#roomSinceMs = null;
  }

  /** @param {boolean} isOn */
  setSaveData(isOn) {
    this.#saveData = isOn;
  }

  /**
   * Adapts the request to the network.
   *
   * @param {number} networkMs The delay that the network requires, without any gathering.
   * @param {number} nowMs
   */
  follow(networkMs, nowMs) {
    this.#networkMs = networkMs;
    const hiddenMs = this.#hiddenMs;
    if (hiddenMs <= this.#coalesceMs) {
      this.#coalesceMs = hiddenMs;
      this.#roomSinceMs = null;
      return;
    }
    this.#roomSinceMs ??= nowMs;
    if (nowMs - this.#roomSinceMs >= RISE_AFTER_MS) {
      this.#coalesceMs = hiddenMs;
      this.#roomSinceMs = null;
    }
  }

  get #hiddenMs() {
    const hiddenMs = Math.min(PART_OF_FLOOR * this.#floorMs, this.#floorMs - this.#networkMs, MOST_MS);
    return Math.max(0, STEP_MS * Math.floor(hiddenMs / STEP_MS));
  }
}
