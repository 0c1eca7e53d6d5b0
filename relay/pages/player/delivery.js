/**
 * How long the relay may gather frames for one message. Pure.
 *
 * Fewer messages cost a relay and a telephone fewer wake-ups, and packets that share a message share its header. Waiting
 * for them is hidden by the delay that the player holds anyway: it asks for a quarter of the preset's least delay, and
 * never for more than what the network leaves of that.
 */

import { FLOORS_MS } from "./target-delay.js";

const PART_OF_FLOOR = 1 / 4;

/** The length of most frames. */
const STEP_MS = 20;

/** As much as a relay grants for packets. */
const MOST_MS = 100;

/** Three packets of 20 ms, which halve the headers of a stream of 24 kb/s once more. */
const SAVING_PACKET_MS = 60;

/** A network must leave room for so long before the relay gathers more again. Less it gathers at once. */
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

  /** What to ask the relay for, as members of a query or of a `delivery`. */
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
   * Follows the network.
   *
   * @param {number} networkMs The delay that it needs without any gathering.
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
