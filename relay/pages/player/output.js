/**
 * The way from the renderer to the speakers: an AudioContext, its volume, and whether it really runs.
 *
 * Fires `condition` when `condition` changes:
 *   starting      just made
 *   running
 *   blocked       the browser wants a click first, or suspended the context
 *   interrupted   by a telephone call or the like; mostly it ends by itself
 *   stuck         it says that it runs, but its clock stands still: only another context helps
 */

import { OutputLatency } from "./output-latency.js";
import { openScheduled } from "./scheduled.js";

/** @typedef {"starting" | "running" | "blocked" | "interrupted" | "stuck"} Condition */

const CHECK_INTERVAL_MS = 250;

/** A context that was just made does not run for a moment; one that does not run for longer is held back. */
const BLOCKED_AFTER_MS = 1000;

/** A clock that stood still for so long, at three checks in a row, is broken and not just late. */
const STUCK_AFTER_MS = 500;
const STUCK_CHECKS = 3;

/** Volume and end follow in so many seconds, without a click. */
const RAMP_SECONDS = 0.01;
const CLOSE_AFTER_MS = 60;

/**
 * A low delay is worth more wake-ups of the processor; a large one is not.
 *
 * @type {Readonly<Record<import("./types.js").Latency, AudioContextLatencyCategory>>}
 */
const LATENCY_HINTS = Object.freeze({ low: "interactive", balanced: "interactive", stable: "balanced" });

// In a function, because where the player is only imported, on a server, a module may have no address.
const processorAddress = () => new URL("./processor.js", import.meta.url);

/** Has the browser fetch the audio thread's modules into its cache. That it can not is no error: `open` will tell. */
export function prefetchOutput() {
  // Only a context has the graph of its modules fetched, and before a click only one without a speaker may be made.
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
   * Make it inside a click: otherwise browsers hold the sound back.
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

  /** From rendering to the speaker, as far as the browser knows; see `OutputLatency.read`. */
  readLatencyMs() {
    return this.#latency.read(this.#context, performance.now()) + (this.#source?.latencyMs() ?? 0);
  }

  /** @param {number} gain */
  set volume(gain) {
    this.#gain.gain.setTargetAtTime(gain, this.#context.currentTime, RAMP_SECONDS);
  }

  /**
   * Loads the audio thread's part.
   *
   * @returns {Promise<MessagePort>} for the conductor.
   * @throws {Error} when it can not be loaded.
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

  /** Lets the context run. That it may not, or was closed meanwhile, is no error: it shows in the condition. */
  resume() {
    // While a telephone call lasts, asking would be held against us (iOS).
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
