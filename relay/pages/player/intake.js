/**
 * What becomes of a frame between the socket and the audio thread: numbering, place on the line, splices and pauses.
 *
 * Pure. Invariants: frames leave in the order of their numbers and each at most once; numbers given to the audio thread
 * count up from 0 and the last `REMEMBERED` of them can be looked up.
 */

import { ahead, epochAhead, readFrame } from "./wire.js";

/** As many as the audio thread remembers. */
const REMEMBERED = 4096;

/** A due time is rounded to a millisecond; only a larger step is a pause. */
const PAUSE_MS = 5;

/**
 * @typedef {object} Entry
 * @property {number} number For the audio thread.
 * @property {number} line Which line: places on different ones can not be compared.
 * @property {number} lineMs Place of the first sample on the line.
 * @property {number} dueMs On the relay's clock, unwrapped.
 * @property {number} durationMs
 * @property {boolean} isSplice Whether it does not follow the frame before it.
 * @property {number} pauseMs Silence before it, by its due time; in pace `speech` only.
 * @property {number} holeMs Sound that is missing before it, by its media time.
 *
 * @typedef {import("./wire.js").Frame} Frame
 */

export class Intake {
  #clock;
  /** @type {import("./messages.js").Format | null} */
  #format = null;
  #isSpeech = false;
  #line = 0;
  /** @type {number | null} */
  #epoch = null;
  #nextSeq = 0;
  #ticks = 0;
  /**
   * Where the next frame should be; null when it begins a line.
   *
   * @type {{dueMs: number, mediaMs: number, isHole: boolean} | null}
   */
  #next = null;
  #number = 0;
  /** @type {(Entry | null)[]} */
  #entries = new Array(REMEMBERED).fill(null);

  /** @param {import("./relay-clock.js").RelayClock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  get isSpeech() {
    return this.#isSpeech;
  }

  /** Where a new connection can go on: {epoch, after}; null before the first frame or gap. */
  get resumePoint() {
    return this.#epoch === null ? null : { epoch: this.#epoch, after: (this.#nextSeq - 1) >>> 0 };
  }

  /** @param {import("./messages.js").Pace} pace */
  setPace(pace) {
    const isSpeech = pace === "speech";
    if (isSpeech !== this.#isSpeech) {
      this.#isSpeech = isSpeech;
      this.beginLine();
    }
  }

  /** @param {import("./messages.js").Format} format */
  setFormat(format) {
    this.#format = format;
  }

  /** Begins a line of its own: what comes has nothing to do with what was. */
  beginLine() {
    this.#line += 1;
    this.#next = null;
  }

  /** Forgets where a new connection could go on. */
  forgetPlace() {
    this.#epoch = null;
    this.beginLine();
  }

  /**
   * Tells whether a connection that begins at this place carries on the numbering, with or without a hole.
   *
   * @param {number} epoch
   * @param {number} seq
   */
  continues(epoch, seq) {
    return this.#epoch === epoch && ahead(seq, this.#nextSeq) >= 0;
  }

  /**
   * Notes that frames are lost, so that a connection that breaks now does not ask for them.
   *
   * @param {import("./messages.js").Gap} gap
   */
  skip({ epoch, to_seq: toSeq }) {
    if (this.#epoch === epoch && ahead(toSeq, this.#nextSeq) >= 0) {
      if (this.#next !== null) {
        this.#next.isHole = true;
      }
      this.#nextSeq = (toSeq + 1) >>> 0;
    }
  }

  /** @param {number} number */
  entry(number) {
    const entry = this.#entries[number % REMEMBERED];
    return entry?.number === number ? entry : null;
  }

  /**
   * Takes a binary message.
   *
   * @param {ArrayBuffer} message
   * @returns {Entry & {samples: Int16Array<ArrayBuffer>} | null} null for a frame that was there already, or before there is a format.
   * @throws {RangeError} when it is no frame.
   */
  take(message) {
    const frame = readFrame(message);
    const format = this.#format;
    if (format === null || !this.#accept(frame)) {
      return null;
    }
    const entry = this.#place(frame, format);
    this.#entries[this.#number % REMEMBERED] = entry;
    this.#number += 1;
    this.#nextSeq = (frame.seq + 1) >>> 0;
    // Only who takes them has the samples: what is remembered outlives them by minutes.
    return { ...entry, samples: frame.samples };
  }

  /**
   * @param {Frame} frame
   * @param {import("./messages.js").Format} format
   * @returns {Entry}
   */
  #place({ mediaTime, dueMs: wireDueMs, samples }, { rate, channels, clock_rate: clockRate }) {
    const next = this.#next;
    this.#ticks = next === null ? mediaTime : this.#ticks + ahead(mediaTime, this.#ticks);
    const mediaMs = (this.#ticks * 1000) / clockRate;
    const dueMs = this.#clock.unwrap(wireDueMs);
    const durationMs = (Math.floor(samples.length / channels) * 1000) / rate;
    const pauseMs = next === null || !this.#isSpeech ? 0 : dueMs - next.dueMs;
    this.#next = { dueMs: dueMs + durationMs, mediaMs: mediaMs + durationMs, isHole: false };
    return {
      number: this.#number,
      line: this.#line,
      lineMs: this.#isSpeech ? dueMs : mediaMs,
      dueMs,
      durationMs,
      isSplice: next === null || next.isHole,
      pauseMs: pauseMs >= PAUSE_MS ? pauseMs : 0,
      holeMs: next === null ? 0 : Math.max(0, mediaMs - next.mediaMs),
    };
  }

  /** @param {Frame} frame */
  #accept({ epoch, seq }) {
    if (this.#epoch === null || epochAhead(epoch, this.#epoch) !== 0) {
      this.#epoch = epoch;
      this.beginLine();
      return true;
    }
    const lead = ahead(seq, this.#nextSeq);
    if (lead > 0 && this.#next !== null) {
      this.#next.isHole = true;
    }
    return lead >= 0;
  }
}
