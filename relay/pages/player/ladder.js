/**
 * What to do about a playout delay that is not the target: the mildest means that is enough. Pure.
 *
 *   1. always         play up to 0.03 % faster or slower than the drift of the sound cards, which a PI loop learns
 *   2. somewhat late  1.05 times faster by WSOLA, silence first; 1.10 when 200 ms late, or in the first two seconds
 *   3. over 0.9 s      one jump, then 3 s of quiet
 *   4. too early      0.95 times
 *
 * Positive errors are late: the sound is played later than the target says.
 */

/** Two sound cards differ by less; what the loop takes for more is noise. */
const MAX_DRIFT_PPM = 500;

/** The trim beyond the drift: a third of a hertz in a kilohertz. No delay that is too small for a stretch is worth more. */
const MAX_TRIM_PPM = 300;

/**
 * A critically damped loop of 0.04 rad/s: a step of 200 ppm in drift makes an error of 200e-6 / (0.04 e) = 1.8 ms, and
 * noise of 5 ms in the measured delay bends the pitch by 0.04 %, a fraction of a cent.
 */
const LOOP_RADIANS_PER_SECOND = 0.04;
const PROPORTIONAL_PPM_PER_MS = 2 * LOOP_RADIANS_PER_SECOND * 1000;
const INTEGRAL_PPM_PER_MS_SECOND = LOOP_RADIANS_PER_SECOND ** 2 * 1000;

/** Late enough for a stretch: so many ms, or this part of the target, but never more than the most. */
const LATE_MS = 60;
const LATE_PART = 0.25;
const MOST_LATE_MS = 90;
const LATE_FOR_MS = 1000;
const VERY_LATE_MS = 200;

/**
 * While the first frames are still telling how fast the network is, a delay that shows itself is made up for at once:
 * nobody knows yet how the speaker sounds, and later it would be heard. A target that falls is followed as closely,
 * because what is left when it stops would stay for a minute.
 */
const SETTLING_MS = 2000;
const FOLLOWING_MS = 1000;
const CLOSE_LATE_MS = 8;
const CLOSE_LATE_FOR_MS = 300;

/** Early enough: less, because an underrun is heard and a stretch is not. */
const EARLY_MS = 20;
const EARLY_PART = 0.25;
const EARLY_FOR_MS = 300;

/** A stretch goes on until no more is left than the trim makes up for soon. */
const RELEASE_MS = 5;

/** What a stretch does not make up for within 10 s. */
export const JUMP_MS = 900;
const QUIET_AFTER_JUMP_MS = 3000;

const FAST = 1.05;
const FASTER = 1.1;
const SLOW = 0.95;

/** The delay is measured between messages and blocks, with an error of some ms that changes each time. */
const SMOOTHING_MS = 500;

/** A stretch changes it by more than that noise. */
const STRETCHING_SMOOTHING_MS = 100;

export class Ladder {
  /** @type {number | null} */
  #smoothMs = null;
  #driftPpm = 0;
  #trimPpm = 0;
  #stretch = 1;
  /** @type {number | null} */
  #lateSinceMs = null;
  /** @type {number | null} */
  #earlySinceMs = null;
  #quietUntilMs = -Infinity;
  #settlingUntilMs = -Infinity;
  #followingUntilMs = -Infinity;
  #targetMs = -Infinity;
  /** @type {number | null} */
  #decidedMs = null;

  /** What the drift is thought to be: positive, the broadcaster's clock is faster than the sound card. */
  get driftPpm() {
    return this.#driftPpm;
  }

  get trimPpm() {
    return this.#trimPpm;
  }

  get stretch() {
    return this.#stretch;
  }

  /** The error without its noise. */
  get errorMs() {
    return this.#smoothMs ?? 0;
  }

  /** Begins to measure anew, after a start, a jump or another discontinuity; the drift is still what it was. */
  restart() {
    this.#smoothMs = null;
    this.#decidedMs = null;
    this.#stretch = 1;
    this.#lateSinceMs = null;
    this.#earlySinceMs = null;
    this.#trimPpm = this.#driftPpm;
  }

  /**
   * Notes that the first sound begins.
   *
   * @param {number} nowMs
   */
  settle(nowMs) {
    this.#settlingUntilMs = nowMs + SETTLING_MS;
  }

  /** @param {number} nowMs */
  mayJump(nowMs) {
    return nowMs >= this.#quietUntilMs;
  }

  /** @param {number} nowMs */
  noteJump(nowMs) {
    this.#quietUntilMs = nowMs + QUIET_AFTER_JUMP_MS;
    this.restart();
  }

  /**
   * Decides on `trimPpm` and `stretch` while it plays, given the error as measured at `nowMs`.
   *
   * @param {number} errorMs
   * @param {number} targetMs
   * @param {number} nowMs
   */
  decide(errorMs, targetMs, nowMs) {
    const elapsedMs = Math.min(nowMs - (this.#decidedMs ?? nowMs), SMOOTHING_MS);
    this.#decidedMs = nowMs;
    this.#smoothMs ??= errorMs;
    const smoothingMs = this.#stretch === 1 ? SMOOTHING_MS : STRETCHING_SMOOTHING_MS;
    this.#smoothMs += (1 - Math.exp(-elapsedMs / smoothingMs)) * (errorMs - this.#smoothMs);
    if (this.#isRest(errorMs)) {
      // Without noise it would be known half a second later, when too much had been made up for.
      this.#stretch = 1;
      this.#smoothMs = errorMs;
    }
    this.#stretch = this.#chooseStretch(this.#smoothMs, targetMs, nowMs);
    this.#chooseTrim(this.#smoothMs, elapsedMs / 1000);
  }

  /**
   * Whether a stretch has done its work.
   *
   * @param {number} errorMs
   */
  #isRest(errorMs) {
    return (this.#stretch > 1 && errorMs <= RELEASE_MS) || (this.#stretch < 1 && errorMs >= -RELEASE_MS);
  }

  /**
   * @param {number} errorMs
   * @param {number} targetMs
   * @param {number} nowMs
   */
  #chooseStretch(errorMs, targetMs, nowMs) {
    if (targetMs < this.#targetMs) {
      this.#followingUntilMs = nowMs + FOLLOWING_MS;
    }
    this.#targetMs = targetMs;
    const isSettling = nowMs < this.#settlingUntilMs;
    const isClose = isSettling || nowMs < this.#followingUntilMs;
    const late = isClose ? CLOSE_LATE_MS : Math.min(MOST_LATE_MS, Math.max(LATE_MS, LATE_PART * targetMs));
    const early = Math.max(EARLY_MS, EARLY_PART * targetMs);
    this.#lateSinceMs = errorMs > late ? (this.#lateSinceMs ?? nowMs) : null;
    this.#earlySinceMs = errorMs < -early ? (this.#earlySinceMs ?? nowMs) : null;
    if (this.#stretch > 1) {
      return errorMs > VERY_LATE_MS ? FASTER : this.#stretch;
    }
    if (this.#lateSinceMs !== null && nowMs - this.#lateSinceMs >= (isClose ? CLOSE_LATE_FOR_MS : LATE_FOR_MS)) {
      return isSettling || errorMs > VERY_LATE_MS ? FASTER : FAST;
    }
    if (this.#earlySinceMs !== null && nowMs - this.#earlySinceMs >= EARLY_FOR_MS) {
      return SLOW;
    }
    return this.#stretch;
  }

  /**
   * @param {number} errorMs
   * @param {number} elapsedSeconds
   */
  #chooseTrim(errorMs, elapsedSeconds) {
    if (this.#stretch !== 1) {
      this.#trimPpm = this.#driftPpm;
      return;
    }
    const correction = PROPORTIONAL_PPM_PER_MS * errorMs;
    this.#trimPpm = this.#driftPpm + clamp(correction, MAX_TRIM_PPM);
    if (Math.abs(correction) <= MAX_TRIM_PPM) {
      // Only while the loop has room: what it can not correct is no drift.
      const driftPpm = this.#driftPpm + INTEGRAL_PPM_PER_MS_SECOND * errorMs * elapsedSeconds;
      this.#driftPpm = clamp(driftPpm, MAX_DRIFT_PPM);
    }
  }
}

/**
 * @param {number} value
 * @param {number} bound
 */
function clamp(value, bound) {
  return Math.max(-bound, Math.min(bound, value));
}
