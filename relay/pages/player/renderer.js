/**
 * Does the audio thread's work: takes orders and sound, fills blocks, and reports its place. Needs no AudioWorklet.
 *
 * `Conductor` sends the orders, and messages.d.ts describes them.
 *
 * Invariants: `render` allocates nothing and always fills its output. Memory is bounded: beyond `CAPACITY_SECONDS`, the
 * oldest sound is dropped, and `lostSamples` counts it.
 */

import { CONCEALING, PLAYING, Playhead } from "./playhead.js";
import { SincResampler } from "./resampler.js";
import { Ring } from "./ring.js";

/** More than a relay sends ahead (10 s) or buffers for a listener (10 s). The two do not add up. */
const CAPACITY_SECONDS = 16;

/** Number of frames whose places are remembered: the capacity in frames of 5 ms, the shortest useful ones. */
const MARKS = 4096;

/** Maximum samples that are rendered at once. */
const PIECE = 128;

/** Plays sound of one format. */
class Voice {
  #scratch;
  #markPlaces = new Float64Array(MARKS);
  #markFrames = new Float64Array(MARKS);
  #marks = 0;
  #lost = 0;

  /**
   * @param {number} rate
   * @param {number} channels
   * @param {number} outputRate
   */
  constructor(rate, channels, outputRate) {
    this.rate = rate;
    this.channels = channels;
    this.ring = new Ring(channels, CAPACITY_SECONDS * rate);
    this.playhead = new Playhead(this.ring, rate);
    const step = Math.ceil((PIECE * rate) / outputRate);
    this.resampler = new SincResampler({ inputRate: rate, outputRate, channels, capacity: 4 * step + 1024 });
    this.#scratch = this.ring.planes.map(() => new Float32Array(4 * step + 1024));
  }

  get lostSamples() {
    return this.#lost;
  }

  /** @param {import("./messages.js").AudioOrder} order */
  write({ frame, samples, splice, overlap, pause }) {
    const { playhead, ring } = this;
    const before = playhead.place;
    playhead.write(samples, splice, Math.round(pause * this.rate), overlap);
    this.#lost += Math.max(0, playhead.place - before);
    const slot = this.#marks % MARKS;
    this.#markPlaces[slot] = ring.end - Math.floor(samples.length / this.channels);
    this.#markFrames[slot] = frame;
    this.#marks += 1;
  }

  /**
   * @param {Float32Array[]} outputs
   * @param {number} count
   */
  render(outputs, count) {
    const missing = this.resampler.missing(count);
    if (missing > 0) {
      this.playhead.read(this.#scratch, missing);
      this.resampler.writePlanar(this.#scratch, missing);
    }
    this.resampler.read(outputs, count);
  }

  /** The last frame written; -1 before the first. */
  get newest() {
    return this.#marks === 0 ? -1 : this.#markFrames[(this.#marks - 1) % MARKS];
  }

  /** Returns the present frame and how many samples of it have been heard, or null before the first. */
  locate() {
    // Samples in the resampler have been read, but not heard.
    const heard = this.playhead.place - this.resampler.held;
    for (let mark = this.#marks - 1; mark >= Math.max(0, this.#marks - MARKS); mark -= 1) {
      const slot = mark % MARKS;
      if (this.#markPlaces[slot] <= heard || mark === 0) {
        return { frame: this.#markFrames[slot], offset: heard - this.#markPlaces[slot] };
      }
    }
    return null;
  }
}

export class Renderer {
  #outputRate;
  /** @type {Voice | null} */
  #voice = null;
  /** @type {Voice | null} */
  #leaving = null;
  #planes = [new Float32Array(PIECE), new Float32Array(PIECE)];

  /** @param {number} outputRate Samples per second of the output. */
  constructor(outputRate) {
    this.#outputRate = outputRate;
  }

  /**
   * Executes an order. Ignores an unknown type.
   *
   * @param {import("./messages.js").Order} order
   */
  obey(order) {
    if (order.type === "format") {
      this.#setFormat(order.rate, order.channels);
      return;
    }
    const voice = this.#voice;
    if (voice === null) {
      return;
    }
    const { playhead } = voice;
    switch (order.type) {
      case "audio":
        voice.write(order);
        break;
      case "steer":
        voice.resampler.trim(order.trimPpm);
        playhead.stretch(order.stretch, Math.round(order.by * voice.rate));
        playhead.isExpecting = order.expecting;
        break;
      case "start":
        playhead.startIn = order.inSeconds === null ? -1 : Math.max(0, Math.round(order.inSeconds * voice.rate));
        break;
      case "jump":
        playhead.jump(Math.round(order.seconds * voice.rate));
        break;
      case "clear":
        playhead.clear();
        break;
    }
  }

  /**
   * Fills one stereo block of any length.
   *
   * @param {Float32Array} left
   * @param {Float32Array} right
   */
  render(left, right) {
    for (let at = 0; at < left.length; at += PIECE) {
      this.#renderPiece(left, right, at, Math.min(PIECE, left.length - at));
    }
  }

  /**
   * Reports the present mode, place and counts.
   *
   * @returns {import("./messages.js").Report | null} null before the first format.
   */
  report() {
    const voice = this.#voice;
    if (voice === null) {
      return null;
    }
    const { playhead, rate } = voice;
    const located = voice.locate();
    return {
      mode: playhead.mode === PLAYING ? "playing" : playhead.mode === CONCEALING ? "concealing" : "silent",
      frame: located?.frame ?? -1,
      offsetSeconds: (located?.offset ?? 0) / rate,
      newest: voice.newest,
      heldSeconds: playhead.held / rate,
      underruns: playhead.underruns,
      concealedSeconds: playhead.concealedSamples / rate,
      lostSeconds: voice.lostSamples / rate,
    };
  }

  /**
   * @param {number} rate
   * @param {number} channels
   */
  #setFormat(rate, channels) {
    const old = this.#voice;
    if (old?.rate === rate && old.channels === channels) {
      return;
    }
    const voice = new Voice(rate, channels, this.#outputRate);
    if (old !== null) {
      old.playhead.clear();
      voice.playhead.underruns = old.playhead.underruns;
      this.#leaving = old;
    }
    this.#voice = voice;
  }

  /**
   * @param {Float32Array} left
   * @param {Float32Array} right
   * @param {number} at
   * @param {number} count
   */
  #renderPiece(left, right, at, count) {
    left.fill(0, at, at + count);
    right.fill(0, at, at + count);
    if (this.#leaving !== null) {
      this.#add(this.#leaving, left, right, at, count);
      if (this.#leaving.playhead.isQuiet) {
        this.#leaving = null;
      }
    }
    if (this.#voice !== null) {
      this.#add(this.#voice, left, right, at, count);
    }
  }

  /**
   * @param {Voice} voice
   * @param {Float32Array} left
   * @param {Float32Array} right
   * @param {number} at
   * @param {number} count
   */
  #add(voice, left, right, at, count) {
    const planes = this.#planes;
    voice.render(planes, count);
    const second = voice.channels === 1 ? planes[0] : planes[1];
    for (let i = 0; i < count; i += 1) {
      left[at + i] += planes[0][i];
      right[at + i] += second[i];
    }
  }
}
