/**
 * How late sound leaves the speaker after it was rendered, as far as a browser can be believed. Pure: time is an argument.
 *
 * A browser tells it in up to three ways, and each can be wrong. WebKit's output timestamp hardly moved up to Safari 17.4
 * (https://bugs.webkit.org/show_bug.cgi?id=264247), so the way that it tells of grew by a second a second.
 */

/** No way to a speaker takes longer: Bluetooth takes about 0.3 s, AirPlay 2 s. */
const MOST_MS = 3000;

/** Two looks at the same way differ by less than this. What grows with the time differs by the time between them. */
const STEADY_MS = 100;

/** Looks are at least so far apart by both clocks: on a busy machine timers come in bursts, and sound is rendered in bursts. */
const LOOK_INTERVAL_MS = 200;

/**
 * Firefox ESR 153.8 on Linux often freezes a page for good when it asks for `outputLatency` or `getOutputTimestamp()` while
 * its sound starts: the page holds the lock of the audio graph and waits for PulseAudio, PulseAudio waits for the audio
 * worklet, and the worklet waits for the lock. There is nothing but the name to tell such a browser by.
 */
const FREEZES_WHEN_ASKED = /X11;.*Firefox\//;

/**
 * As much of an AudioContext as tells of its output; browsers have more or less of it.
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
  #believedMs = 0;

  /** @param {string} userAgent The browser's name: one that freezes when it is asked is only asked for `baseLatency`. */
  constructor(userAgent = "") {
    this.#mayAsk = !FREEZES_WHEN_ASKED.test(userAgent);
  }

  /**
   * Gives the latency in ms: the best of what the browser tells that is plausible, or 0. Call it a few times a second,
   * because what was seen once is not believed.
   *
   * @param {Output} output
   * @param {number} nowMs Of the page's `performance.now()`.
   */
  read(output, nowMs) {
    const before = this.#seen;
    const renderedMs = output.currentTime * 1000;
    if (Math.min(nowMs - before.atMs, renderedMs - before.renderedMs) < LOOK_INTERVAL_MS) {
      return this.#believedMs;
    }
    const told = this.#mayAsk ? toldMs(output) : NaN;
    const stamped = this.#mayAsk ? stampedMs(output, nowMs) : NaN;
    const seen = { atMs: nowMs, renderedMs, told, stamped };
    const baseMs = (output.baseLatency ?? NaN) * 1000;
    this.#seen = seen;
    this.#believedMs =
      plausible(seen.told, before.told) ?? plausible(seen.stamped, before.stamped) ?? plausible(baseMs, baseMs) ?? 0;
    return this.#believedMs;
  }
}

/**
 * Gives what a browser says, or null where that can not be.
 *
 * @param {number} ms
 * @param {number} beforeMs
 */
function plausible(ms, beforeMs) {
  const isSteady = Math.abs(ms - beforeMs) <= STEADY_MS;
  // Two clocks that are read one after the other may cross.
  return isSteady && ms >= -STEADY_MS && ms <= MOST_MS ? Math.max(0, ms) : null;
}

/** @param {Output} output */
function toldMs({ outputLatency = 0 }) {
  // 0 stands for unknown.
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
