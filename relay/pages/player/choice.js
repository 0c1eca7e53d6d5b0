/**
 * What the player wants from the relay, a channel and codecs, against what it has asked for. Pure.
 *
 * People choose faster than a relay switches: a held arrow key goes through a list of channels. Only the latest choice
 * counts. One that follows too soon waits, and so does one before the answer to the last `switch`.
 */

import { PCM } from "./wire.js";

/**
 * The least time between two switches. A relay allows five in a second (`max_switches_per_second`), and a held arrow key
 * chooses thirty.
 */
const SWITCH_INTERVAL_MS = 200;

/** A relay that does not support `switch` ignores it. After this time, a new connection has to ask instead. */
const SWITCH_TIMEOUT_MS = 3000;

/**
 * @typedef {{channel: string} | {codec: string}} Wish Members of a `switch` message.
 */

export class Choice {
  #channel;
  #codec;
  /** The playable codecs, preferred first; null before they are known. @type {string[] | null} */
  #codecs = null;
  /** The last request, in an address or a message. A channel that the relay refused counts as not asked for. */
  #asked = { channel: "", codec: "" };
  /** Whether the relay has not answered the last `switch`. */
  #isSwitching = false;
  #switchedMs = -Infinity;

  /**
   * @param {string} channel
   * @param {import("./types.js").Codec} codec The codec to prefer, if it can be played.
   */
  constructor(channel, codec) {
    this.#channel = channel;
    this.#codec = codec;
  }

  get channel() {
    return this.#channel;
  }

  /** @param {string} channel */
  setChannel(channel) {
    this.#channel = channel;
  }

  /** @param {import("./types.js").Codec} codec */
  setCodec(codec) {
    this.#codec = codec;
    if (this.#codecs !== null) {
      this.setPlayable(this.#codecs);
    }
  }

  /** @param {readonly string[]} playable The codecs that can be played. */
  setPlayable(playable) {
    this.#codecs = [...playable].sort((a, b) => Number(b === this.#codec) - Number(a === this.#codec));
  }

  /** Whether the relay has not answered the last `switch`. */
  get isSwitching() {
    return this.#isSwitching;
  }

  /** Whether the chosen channel is not the one that was asked for. */
  get isElsewhere() {
    return this.#channel !== this.#asked.channel;
  }

  /**
   * Notes that a new connection asks for all of it.
   *
   * @returns {string[]} The codecs to ask for, preferred first.
   */
  connect() {
    const codecs = this.#codecs ?? [PCM];
    this.#asked = { channel: this.#channel, codec: codecs.join(",") };
    return codecs;
  }

  /** Notes that no answer will come. */
  disconnect() {
    this.#isSwitching = false;
  }

  /**
   * Returns what to do for the choice now: send a `switch` with these members, connect at once, connect anew because the
   * relay does not answer, or nothing.
   *
   * @param {"open" | "scheduled" | "opening"} link The connection, or its next attempt.
   * @param {number} nowMs
   * @returns {Wish | "retry" | "reconnect" | null}
   */
  step(link, nowMs) {
    if (this.#isSwitching) {
      return nowMs - this.#switchedMs >= SWITCH_TIMEOUT_MS ? "reconnect" : null;
    }
    const wish = this.#wish;
    if (wish === null || nowMs - this.#switchedMs < SWITCH_INTERVAL_MS) {
      return null;
    }
    if (link === "open") {
      this.#switchedMs = nowMs;
      this.#isSwitching = true;
      Object.assign(this.#asked, wish);
      return wish;
    }
    if (link === "scheduled" && this.isElsewhere) {
      this.#switchedMs = nowMs;
      return "retry";
    }
    return null;
  }

  /**
   * Notes a `hello`.
   *
   * @param {string} channel The channel that the relay sends.
   * @returns {boolean} Whether it is the chosen one. The relay resolves an empty choice.
   */
  grant(channel) {
    this.#isSwitching = false;
    if (this.isElsewhere) {
      return false;
    }
    this.#channel = this.#asked.channel = channel;
    return true;
  }

  /**
   * Notes that the relay refused the last `switch`.
   *
   * @param {string} channel The channel that the relay still sends. It becomes the choice, unless another has followed.
   * @returns {boolean} Whether it is the choice.
   */
  refuse(channel) {
    this.#isSwitching = false;
    const isLatest = this.#wish === null;
    this.#asked.channel = channel;
    if (isLatest) {
      this.#channel = channel;
    }
    return isLatest;
  }

  /** The chosen channel or else the codecs, if they are not what was asked for; otherwise null. @returns {Wish | null} */
  get #wish() {
    if (this.isElsewhere) {
      return { channel: this.#channel };
    }
    const codec = this.#codecs?.join(",") ?? "";
    return codec === this.#asked.codec ? null : { codec };
  }
}
