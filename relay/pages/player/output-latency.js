/**
 * Estimates the time from rendering to the speaker. Pure: time is an argument.
 *
 * A browser reports this latency in up to three ways, and each can be wrong. Up to Safari 17.4, for example, WebKit's
 * output timestamp hardly moved (https://bugs.webkit.org/show_bug.cgi?id=264247), so the latency seemed to grow by a
 * second per second.
 */

/** No real latency is larger. Bluetooth takes about 0.3 s, and AirPlay 2 s. */
const MOST_MS = 3000;

/** Readings of the same latency are this close to their median. Readings that grow with time are not. */
const STEADY_MS = 100;

/** Two seconds. On a busy machine, some readings are far off, and two wrong ones may agree by chance. */
const READINGS = 8;

const LEAST_READINGS = 3;

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
  #lookedMs = -Infinity;
  #renderedMs = -Infinity;
  #told = new Readings();
  #stamped = new Readings();
  #latencyMs = 0;

  /** @param {string} userAgent The browser's name. In a browser that may freeze, only `baseLatency` is read. */
  constructor(userAgent = "") {
    this.#mayAsk = !FREEZES_WHEN_ASKED.test(userAgent);
  }

  /**
   * Returns the latency in ms: what most of the latest readings agree on, or else `baseLatency`. Call it a few times a
   * second.
   *
   * @param {Output} output
   * @param {number} nowMs The page's `performance.now()`.
   */
  read(output, nowMs) {
    const renderedMs = output.currentTime * 1000;
    if (Math.min(nowMs - this.#lookedMs, renderedMs - this.#renderedMs) < LOOK_INTERVAL_MS) {
      return this.#latencyMs;
    }
    this.#lookedMs = nowMs;
    this.#renderedMs = renderedMs;
    if (this.#mayAsk) {
      this.#told.add(toldMs(output));
      this.#stamped.add(stampedMs(output, nowMs));
    }
    const baseMs = (output.baseLatency ?? NaN) * 1000;
    this.#latencyMs = this.#told.agreedMs ?? this.#stamped.agreedMs ?? possible(baseMs) ?? 0;
    return this.#latencyMs;
  }
}

/** The latest readings of a latency. */
class Readings {
  /** @type {number[]} */
  #latest = [];

  /** @param {number} ms NaN if it is unknown. */
  add(ms) {
    this.#latest = [...this.#latest, ms].slice(-READINGS);
  }

  /** The median of the readings if it is possible and most of them agree on it, else null. */
  get agreedMs() {
    const known = this.#latest.filter(Number.isFinite).sort((a, b) => a - b);
    const median = known[known.length >> 1];
    const agreeing = known.filter((ms) => Math.abs(ms - median) <= STEADY_MS).length;
    return agreeing >= LEAST_READINGS && agreeing > this.#latest.length / 2 ? possible(median) : null;
  }
}

/**
 * Returns a latency if it is possible, else null.
 *
 * @param {number} ms
 */
function possible(ms) {
  // The two clocks are read one after the other, so a small latency may appear negative.
  return ms >= -STEADY_MS && ms <= MOST_MS ? Math.max(0, ms) : null;
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
