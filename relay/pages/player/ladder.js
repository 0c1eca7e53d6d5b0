/**
 * Corrects a playout delay that differs from its target by the mildest means that suffices. Pure.
 *
 *   1. always         a speed within 0.03 % of the sound cards' drift, which a PI loop learns
 *   2. somewhat late  1.05 times the speed by WSOLA, silence first; 1.10 if 200 ms late, or in the first two seconds
 *   3. over 0.9 s     one jump, then no other for 3 s
 *   4. too early      0.95 times the speed
 *
 * A positive error is late: the sound plays later than the target.
 */

/** The clocks of two sound cards differ by less than this. Anything more is noise. */
const MAX_DRIFT_PPM = 500;

/** Maximum trim beyond the drift: 0.3 Hz in 1 kHz. A delay too small for a stretch does not justify more. */
const MAX_TRIM_PPM = 300;

/**
 * A critically damped loop of 0.04 rad/s: a step of 200 ppm in drift makes an error of 200e-6 / (0.04 e) = 1.8 ms, and
 * noise of 5 ms in the measured delay bends the pitch by 0.04 %, a fraction of a cent.
 */
const LOOP_RADIANS_PER_SECOND = 0.04;
const PROPORTIONAL_PPM_PER_MS = 2 * LOOP_RADIANS_PER_SECOND * 1000;
const INTEGRAL_PPM_PER_MS_SECOND = LOOP_RADIANS_PER_SECOND ** 2 * 1000;

/** When to stretch: if late by LATE_MS or LATE_PART of the target, whichever is more, but at most MOST_LATE_MS. */
const LATE_MS = 60;
const LATE_PART = 0.25;
const MOST_LATE_MS = 90;
const LATE_FOR_MS = 1000;
const VERY_LATE_MS = 200;

/**
 * While the first frames still reveal the network's delay, a lag is corrected at once: listeners do not know the
 * speaker's voice yet, and would notice the change later. The delay also follows a falling target this closely.
 * Otherwise the remaining difference would last for a minute.
 */
const SETTLING_MS = 2000;
const FOLLOWING_MS = 1000;
const CLOSE_LATE_MS = 8;
const CLOSE_LATE_FOR_MS = 300;

/** When to slow down. The thresholds are lower, because an underrun is audible and a stretch is not. */
const EARLY_MS = 20;
const EARLY_PART = 0.25;
const EARLY_FOR_MS = 300;

/** A stretch ends at this error, which the trim soon corrects. */
const RELEASE_MS = 5;

/** A stretch would take more than 10 s to correct this. */
export const JUMP_MS = 900;
const QUIET_AFTER_JUMP_MS = 3000;

const FAST = 1.05;
const FASTER = 1.1;
const SLOW = 0.95;

/** Each measurement of the delay has an error of some ms, because messages and blocks are discrete. */
const SMOOTHING_MS = 500;

/** A stretch changes the delay by more than that noise. */
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

  /** The estimated drift. It is positive if the broadcaster's clock is faster than the sound card. */
  get driftPpm() {
    return this.#driftPpm;
  }

  get trimPpm() {
    return this.#trimPpm;
  }

  get stretch() {
    return this.#stretch;
  }

  /** The smoothed error. */
  get errorMs() {
    return this.#smoothMs ?? 0;
  }

  /** Restarts the measurement after a start, a jump or another discontinuity. The drift stays. */
  restart() {
    this.#smoothMs = null;
    this.#decidedMs = null;
    this.#stretch = 1;
    this.#lateSinceMs = null;
    this.#earlySinceMs = null;
    this.#trimPpm = this.#driftPpm;
  }

  /**
   * Begins the settling time. Called when the first sound is heard.
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
   * Chooses `trimPpm` and `stretch` from an error measured at `nowMs`.
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
      // The smoothed error would show this half a second later, after an overcorrection.
      this.#stretch = 1;
      this.#smoothMs = errorMs;
    }
    this.#stretch = this.#chooseStretch(this.#smoothMs, targetMs, nowMs);
    this.#chooseTrim(this.#smoothMs, elapsedMs / 1000);
  }

  /**
   * Whether a stretch has reached its aim.
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
      // Integrate only while the trim is within its bounds. An error that the trim cannot correct is not drift.
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
