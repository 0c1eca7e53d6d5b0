/**
 * Plays the renderer's sound: an AudioContext, its volume, and a check that it really runs.
 *
 * Fires `condition` when `condition` changes:
 *   starting      just created
 *   running
 *   blocked       the browser requires a click first, or suspended the context
 *   interrupted   by a phone call, for example; usually ends by itself
 *   stuck         the context claims to run, but its clock stands still; only a new context helps
 */

import { OutputLatency } from "./output-latency.js";
import { openScheduled } from "./scheduled.js";

/** @typedef {"starting" | "running" | "blocked" | "interrupted" | "stuck"} Condition */

const CHECK_INTERVAL_MS = 250;

/** A new context takes a moment to run. If it takes longer than this, the browser blocks it. */
const BLOCKED_AFTER_MS = 1000;

/** A clock that stands still for this long, at three checks in a row, is broken and not just late. */
const STUCK_AFTER_MS = 500;
const STUCK_CHECKS = 3;

/** Time constant of volume changes and of the final fade, so that they do not click. */
const RAMP_SECONDS = 0.01;
const CLOSE_AFTER_MS = 60;

/**
 * A short delay justifies more wake-ups of the processor. A long delay does not.
 *
 * @type {Readonly<Record<import("./types.js").Latency, AudioContextLatencyCategory>>}
 */
const LATENCY_HINTS = Object.freeze({ low: "interactive", balanced: "interactive", stable: "balanced" });

// A function, because a server may import this module, and `import.meta.url` may be no valid base address there.
const processorAddress = () => new URL("./processor.js", import.meta.url);

/** Loads the audio thread's modules into the browser's cache. Ignores errors, because `open` will report them. */
export function prefetchOutput() {
  // Only a context loads a module with its imports, and before a click only an offline context is allowed.
  new OfflineAudioContext(1, 1, 44_100).audioWorklet?.addModule(processorAddress()).catch(() => {});
}

export class Output extends EventTarget {
  #context;
  #gain;
  /** @type {ReturnType<typeof openScheduled> | null} */
  #source = null;
  #latency = new OutputLatency(navigator.userAgent);
  #timer;
  /** @type {Condition} */
  #condition = "starting";
  #sinceMs = performance.now();
  #clock = { seconds: 0, sinceMs: performance.now(), checks: 0 };
  #wasInterrupted = false;

  /**
   * Create it in a click handler. Otherwise browsers block the sound.
   *
   * @param {{volume: number, latency: import("./types.js").Latency}} options
   */
  constructor({ volume, latency }) {
    super();
    if (navigator.audioSession !== undefined) {
      // Without this an iPhone's mute switch silences the page.
      navigator.audioSession.type = "playback";
    }
    this.#context = new AudioContext({ latencyHint: LATENCY_HINTS[latency] });
    this.#gain = new GainNode(this.#context, { gain: volume });
    this.#gain.connect(this.#context.destination);
    this.#context.onstatechange = () => this.#check();
    this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL_MS);
    this.resume();
  }

  get context() {
    return this.#context;
  }

  /** The last node before the speakers. */
  get node() {
    return this.#gain;
  }

  get condition() {
    return this.#condition;
  }

  /** Returns the time from rendering to the speaker; see `OutputLatency.read`. */
  readLatencyMs() {
    return this.#latency.read(this.#context, performance.now()) + (this.#source?.latencyMs() ?? 0);
  }

  /** @param {number} gain */
  set volume(gain) {
    this.#gain.gain.setTargetAtTime(gain, this.#context.currentTime, RAMP_SECONDS);
  }

  /**
   * Loads and connects the renderer.
   *
   * @returns {Promise<MessagePort>} The conductor's port to the renderer.
   * @throws {Error} if the audio thread's module cannot be loaded.
   */
  async open() {
    if (this.#context.audioWorklet === undefined) {
      this.#source = openScheduled(this.#context);
      this.#source.node.connect(this.#gain);
      return this.#source.port;
    }
    await this.#context.audioWorklet.addModule(processorAddress());
    const node = new AudioWorkletNode(this.#context, "relay-player", { numberOfInputs: 0, outputChannelCount: [2] });
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage({ port: port1 }, [port1]);
    node.connect(this.#gain);
    return port2;
  }

  /** Resumes the context. A failure is not an error, because `condition` shows it. */
  resume() {
    // iOS penalizes a page that resumes its context during a phone call.
    if (this.#context.state === "suspended") {
      this.#sinceMs = performance.now();
      this.#context.resume().catch(() => {});
    }
  }

  close() {
    clearInterval(this.#timer);
    this.#context.onstatechange = null;
    this.#gain.gain.setTargetAtTime(0, this.#context.currentTime, RAMP_SECONDS);
    setTimeout(() => {
      this.#source?.close();
      this.#context.close();
    }, CLOSE_AFTER_MS);
  }

  #check() {
    const condition = this.#conditionNow();
    if (condition !== this.#condition) {
      this.#condition = condition;
      this.dispatchEvent(new Event("condition"));
    }
  }

  /** @returns {Condition} */
  #conditionNow() {
    const nowMs = performance.now();
    const { state, currentTime } = this.#context;
    if (state === "interrupted") {
      this.#wasInterrupted = true;
      return "interrupted";
    }
    if (state !== "running") {
      if (this.#wasInterrupted) {
        this.#wasInterrupted = false;
        this.resume();
      }
      if (this.#condition === "running") {
        return "blocked";
      }
      return nowMs - this.#sinceMs < BLOCKED_AFTER_MS && this.#condition !== "blocked" ? "starting" : "blocked";
    }
    this.#wasInterrupted = false;
    if (currentTime !== this.#clock.seconds || this.#clock.checks === 0) {
      this.#clock = { seconds: currentTime, sinceMs: nowMs, checks: 1 };
      return "running";
    }
    this.#clock.checks += 1;
    const isStuck = this.#clock.checks > STUCK_CHECKS && nowMs - this.#clock.sinceMs > STUCK_AFTER_MS;
    return isStuck ? "stuck" : "running";
  }
}
