/**
 * Estimates the time from rendering to the speaker. Pure: time is an argument.
 *
 * A browser reports this latency in up to three ways, and each can be wrong. Up to Safari 17.4, for example, WebKit's
 * output timestamp hardly moved (https://bugs.webkit.org/show_bug.cgi?id=264247), so the latency seemed to grow by a
 * second per second.
 */

/** No real latency is larger. Bluetooth takes about 0.3 s, and AirPlay 2 s. */
const MOST_MS = 3000;

/** Two readings of the same latency differ by less than this. A reading that grows with time differs by more. */
const STEADY_MS = 100;

/** Minimum time between readings by both clocks, because a busy machine runs timers and renders sound in bursts. */
const LOOK_INTERVAL_MS = 200;

/**
 * Firefox ESR 153.8 on Linux often deadlocks if a page reads `outputLatency` or `getOutputTimestamp()` while its sound
 * starts: the page holds the lock of the audio graph and waits for PulseAudio, PulseAudio waits for the audio worklet,
 * and the worklet waits for the lock. Only its name identifies such a browser.
 */
const FREEZES_WHEN_ASKED = /X11;.*Firefox\//;

/**
 * The members of an AudioContext that describe its output. Not all browsers have all of them.
 *
 * @typedef {object} Output
 * @property {number} currentTime
 * @property {number} [outputLatency]
 * @property {number} [baseLatency]
 * @property {() => AudioTimestamp} [getOutputTimestamp]
 */

export class OutputLatency {
  #mayAsk;
  #seen = { atMs: -Infinity, renderedMs: -Infinity, told: NaN, stamped: NaN };
  /** The latest plausible reading; null before the first. @type {number | null} */
  #measuredMs = null;
  #baseMs = 0;

  /** @param {string} userAgent The browser's name. In a browser that may freeze, only `baseLatency` is read. */
  constructor(userAgent = "") {
    this.#mayAsk = !FREEZES_WHEN_ASKED.test(userAgent);
  }

  /**
   * Returns the latency in ms: the latest plausible reading, or `baseLatency` before there is one. Call it a few times a
   * second, because a reading is plausible only if the one before it agrees.
   *
   * @param {Output} output
   * @param {number} nowMs The page's `performance.now()`.
   */
  read(output, nowMs) {
    const before = this.#seen;
    const renderedMs = output.currentTime * 1000;
    if (Math.min(nowMs - before.atMs, renderedMs - before.renderedMs) < LOOK_INTERVAL_MS) {
      return this.#measuredMs ?? this.#baseMs;
    }
    const told = this.#mayAsk ? toldMs(output) : NaN;
    const stamped = this.#mayAsk ? stampedMs(output, nowMs) : NaN;
    const seen = { atMs: nowMs, renderedMs, told, stamped };
    const baseMs = (output.baseLatency ?? NaN) * 1000;
    this.#seen = seen;
    // On a busy machine, a single reading may be far off.
    this.#measuredMs = plausible(seen.told, before.told) ?? plausible(seen.stamped, before.stamped) ?? this.#measuredMs;
    this.#baseMs = plausible(baseMs, baseMs) ?? 0;
    return this.#measuredMs ?? this.#baseMs;
  }
}

/**
 * Returns a reading if it is plausible, else null.
 *
 * @param {number} ms
 * @param {number} beforeMs
 */
function plausible(ms, beforeMs) {
  const isSteady = Math.abs(ms - beforeMs) <= STEADY_MS;
  // The two clocks are read one after the other, so a small latency may appear negative.
  return isSteady && ms >= -STEADY_MS && ms <= MOST_MS ? Math.max(0, ms) : null;
}

/** @param {Output} output */
function toldMs({ outputLatency = 0 }) {
  // 0 means unknown.
  return outputLatency > 0 ? outputLatency * 1000 : NaN;
}

/**
 * @param {Output} output
 * @param {number} nowMs
 */
function stampedMs(output, nowMs) {
  const { contextTime = 0, performanceTime = 0 } = output.getOutputTimestamp?.() ?? {};
  if (!(contextTime > 0 && performanceTime > 0)) {
    return NaN;
  }
  const heardMs = contextTime * 1000 + nowMs - performanceTime;
  return output.currentTime * 1000 - heardMs;
}
