/**
 * Decides when to start, and brings the playout delay to its target. Pure.
 *
 * It takes one measurement after another, and sends the orders "start", "jump" and "steer" for `Renderer`.
 */

import { JUMP_MS, Ladder } from "./ladder.js";

/** A backlog is complete once frames have arrived no faster than usual for this long. */
const BACKLOG_OVER_MS = 100;

/** After this time, a lag is corrected even if no complete backlog has arrived. */
const BACKLOG_PATIENCE_MS = 500;

/** A shorter jump is not worth a cut in the sound. */
const SHORTEST_JUMP_MS = 300;

/** Another frame should exist if the newest frame ended longer ago than this. */
const NEXT_FRAME_MS = 20;

/** A smaller change of the trim is not sent. */
const TRIM_STEP_PPM = 2;

/** How often to update the length of a stretch, which changes while it lasts. */
const STRETCH_TOLD_EVERY_MS = 500;

/**
 * @typedef {object} Measurement
 * @property {number} nowMs
 * @property {number | null} playoutMs The playout delay, or what it would be if playback started; null if unknown.
 * @property {number} heldMs Sound that the audio thread holds.
 * @property {number} frameMs The duration of the newest frame.
 * @property {number} targetMs
 * @property {boolean} isLast Whether no more sound follows for now, so that there is nothing to wait for.
 * @property {boolean} isExpecting Whether running out of sound is an underrun.
 * @property {boolean} isSpeech Whether a pause of the speaker moves the line.
 */

export class Steering {
  #ladder = new Ladder();
  #arrivals;
  #counts;
  #send;
  #disturb;
  #isFirstStart = true;
  /** @type {number | null} */
  #lateSinceMs = null;
  /** @type {{trimPpm: number, stretch: number, expecting: boolean, nowMs: number} | null} */
  #steered = null;

  /**
   * @param {object} options
   * @param {import("./arrivals.js").Arrivals} options.arrivals
   * @param {import("./counts.js").Counts} options.counts
   * @param {(order: import("./messages.js").Order) => void} options.send
   * @param {(order: import("./messages.js").Order) => void} options.disturb Sends an order that makes older
   *   measurements obsolete.
   */
  constructor({ arrivals, counts, send, disturb }) {
    this.#arrivals = arrivals;
    this.#counts = counts;
    this.#send = send;
    this.#disturb = disturb;
  }

  /** Whether any sound has been heard since `begin`. */
  get hasPlayed() {
    return !this.#isFirstStart;
  }

  /** How late the sound is, smoothed. A negative value is early. */
  get errorMs() {
    return this.#ladder.errorMs;
  }

  get driftPpm() {
    return this.#ladder.driftPpm;
  }

  /** The speed of playback, where 1 is the broadcaster's speed. */
  get rate() {
    return this.#steered === null ? 1 : this.#steered.stretch * (1 + this.#steered.trimPpm * 1e-6);
  }

  /** Begins anew, for unrelated sound or a new audio thread. */
  begin() {
    this.#isFirstStart = true;
    this.#lateSinceMs = null;
    this.#steered = null;
    this.#ladder.restart();
  }

  /**
   * Steers while sound is heard.
   *
   * @param {Measurement} measurement
   */
  follow(measurement) {
    const { playoutMs, targetMs, nowMs } = measurement;
    if (this.#isFirstStart) {
      this.#isFirstStart = false;
      this.#ladder.settle(nowMs);
    }
    if (playoutMs !== null) {
      this.#isWaitingForBacklog(playoutMs, measurement);
      this.#ladder.decide(playoutMs - targetMs, targetMs, nowMs);
    }
    this.#steer(measurement);
  }

  /**
   * Decides whether to start while no sound is heard although some is held.
   *
   * @param {Measurement} measurement
   */
  considerStart(measurement) {
    const { playoutMs, isLast, targetMs } = measurement;
    if (isLast || playoutMs === null) {
      this.#start(0, measurement);
      return;
    }
    const lateMs = playoutMs - targetMs;
    if (this.#isFirstStart && lateMs > 0) {
      this.#startFirst(lateMs, playoutMs, measurement);
    } else if (this.#isWaitingForBacklog(playoutMs, measurement)) {
      this.#start(null, measurement);
    } else {
      this.#start(Math.max(0, -lateMs) / 1000, measurement);
    }
  }

  /**
   * Starts at the sound whose delay matches the target. Skips the sound before it, because nothing has been heard yet.
   *
   * @param {number} lateMs
   * @param {number} playoutMs
   * @param {Measurement} measurement
   */
  #startFirst(lateMs, playoutMs, measurement) {
    const { heldMs, targetMs, frameMs, nowMs, isSpeech } = measurement;
    this.#lateSinceMs ??= nowMs;
    const isComplete = playoutMs - heldMs <= frameMs + NEXT_FRAME_MS;
    if (!isSpeech && !isComplete && nowMs - this.#lateSinceMs < BACKLOG_PATIENCE_MS) {
      this.#start(null, measurement);
      return;
    }
    this.#lateSinceMs = null;
    const most = isComplete && !isSpeech ? heldMs : heldMs - targetMs;
    this.#disturb({ type: "jump", seconds: Math.max(0, Math.min(lateMs, most)) / 1000 });
    this.#start(0, measurement);
  }

  /**
   * @param {number | null} inSeconds
   * @param {Measurement} measurement
   */
  #start(inSeconds, measurement) {
    this.#ladder.restart();
    this.#steer(measurement);
    this.#send({ type: "start", inSeconds });
  }

  /**
   * Jumps if a jump is due. Returns whether a jump is to follow once the backlog has arrived.
   *
   * @param {number} playoutMs
   * @param {Measurement} measurement
   */
  #isWaitingForBacklog(playoutMs, { heldMs, targetMs, nowMs, isSpeech }) {
    const lateMs = playoutMs - targetMs;
    if (lateMs <= JUMP_MS || !this.#ladder.mayJump(nowMs)) {
      this.#lateSinceMs = null;
      return false;
    }
    this.#lateSinceMs ??= nowMs;
    const spareMs = heldMs - targetMs / 2;
    if (spareMs >= lateMs && nowMs - this.#arrivals.fellAtMs >= BACKLOG_OVER_MS) {
      this.#jump(lateMs, nowMs);
      return false;
    }
    if (nowMs - this.#lateSinceMs < BACKLOG_PATIENCE_MS) {
      return true;
    }
    this.#lateSinceMs = null;
    if (spareMs >= SHORTEST_JUMP_MS) {
      this.#jump(Math.min(lateMs, spareMs), nowMs);
    } else if (!isSpeech) {
      // No newer sound exists, because the speaker paused and the line moved.
      this.#arrivals.restart(false, true);
    }
    return false;
  }

  /**
   * @param {number} byMs
   * @param {number} nowMs
   */
  #jump(byMs, nowMs) {
    this.#counts.noteJump(byMs);
    this.#ladder.noteJump(nowMs);
    this.#disturb({ type: "jump", seconds: byMs / 1000 });
  }

  /** @param {Measurement} measurement */
  #steer({ nowMs, isExpecting: expecting }) {
    const old = this.#steered;
    const { trimPpm, stretch, errorMs } = this.#ladder;
    const isNews =
      old === null ||
      Math.abs(old.trimPpm - trimPpm) >= TRIM_STEP_PPM ||
      old.stretch !== stretch ||
      old.expecting !== expecting ||
      (stretch !== 1 && nowMs - old.nowMs >= STRETCH_TOLD_EVERY_MS);
    if (isNews) {
      this.#steered = { trimPpm, stretch, expecting, nowMs };
      this.#send({ type: "steer", trimPpm, stretch, by: Math.abs(errorMs) / 1000, expecting });
    }
  }
}
