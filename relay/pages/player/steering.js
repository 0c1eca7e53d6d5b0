/**
 * When to start, and how to get from the playout delay that is to the one that should be. Pure.
 *
 * It looks at one measurement after another, and gives orders for `Renderer`: "start", "jump" and "steer".
 */

import { JUMP_MS, Ladder } from "./ladder.js";

/** A backlog counts as complete when the frames came no faster than usual for so long. */
const BACKLOG_OVER_MS = 100;

/** A lag whose backlog does not come is dealt with as it is after this. */
const BACKLOG_PATIENCE_MS = 500;

/** A jump by less than this is not worth it. */
const SHORTEST_JUMP_MS = 300;

/** More than so much behind the newest frame's end there should be another one. */
const NEXT_FRAME_MS = 20;

/** Less than this is no news for the resampler. */
const TRIM_STEP_PPM = 2;

/** What a stretch has to make up for changes while it lasts; it is told anew so often. */
const STRETCH_TOLD_EVERY_MS = 500;

/**
 * @typedef {object} Measurement
 * @property {number} nowMs
 * @property {number | null} playoutMs The delay of what is heard, or would be if it started; null when unknown.
 * @property {number} heldMs Sound that is there.
 * @property {number} frameMs The length of the newest frame.
 * @property {number} targetMs
 * @property {boolean} isLast Whether nothing follows for now, so that there is nothing to wait for.
 * @property {boolean} isExpecting Whether running out of sound is a fault.
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
   * @param {(order: import("./messages.js").Order) => void} options.disturb Sends an order after which older measurements are worthless.
   */
  constructor({ arrivals, counts, send, disturb }) {
    this.#arrivals = arrivals;
    this.#counts = counts;
    this.#send = send;
    this.#disturb = disturb;
  }

  /** Whether something has been heard since the beginning. */
  get hasPlayed() {
    return !this.#isFirstStart;
  }

  /** How late it is, without noise; negative is early. */
  get errorMs() {
    return this.#ladder.errorMs;
  }

  get driftPpm() {
    return this.#ladder.driftPpm;
  }

  /** The speed, 1 is the broadcaster's. */
  get rate() {
    return this.#steered === null ? 1 : this.#steered.stretch * (1 + this.#steered.trimPpm * 1e-6);
  }

  /** Begins: what was heard before has nothing to do with what comes, and the audio thread may be another one. */
  begin() {
    this.#isFirstStart = true;
    this.#lateSinceMs = null;
    this.#steered = null;
    this.#ladder.restart();
  }

  /**
   * Something is heard.
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
   * Nothing is heard, but there is something to play.
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
   * Starts with what is just old enough. Nobody has heard what came before, so nobody misses it.
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
   * Jumps when that is due; tells whether it will be, as soon as the backlog is there.
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
      // There is nothing newer: the speaker made a pause, and the line moved.
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
