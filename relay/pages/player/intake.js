/**
 * Prepares received frames for the audio thread: numbers them, places them on the line, and finds splices and pauses.
 *
 * Pure. Invariants: frames leave in sequence order and each at most once; the numbers for the audio thread count up
 * from 0, and the last `REMEMBERED` of them can be looked up.
 */

import { opusTicks, OPUS_CLOCK_RATE } from "./opus-packet.js";
import { ahead, epochAhead, OPUS, readFrames } from "./wire.js";

/** As many frames as the audio thread remembers. */
const REMEMBERED = 4096;

/** Due times are rounded to a millisecond, so only a larger step is a pause. */
const PAUSE_MS = 5;

/**
 * Between due times of two clocks, only a larger step is a pause. A greeting is seldom later than this, and its delay is
 * the error of the comparison.
 */
const PAUSE_BETWEEN_CLOCKS_MS = 100;

/** When a stream continues in another codec, the sound of both codecs is blended for this long, if both cover it. */
const BLEND_MS = 10;

/** A shorter overlap is not worth a blend. */
const SHORTEST_BLEND_MS = 1;

/** Opus media time wraps after this. That of any other codec wraps later. */
const MEDIA_WRAP_MS = (2 ** 32 * 1000) / OPUS_CLOCK_RATE;

/** If the media time of a stream in another codec is further away than this, it does not continue the old stream. */
const MOST_APART_MS = 60_000;

/**
 * @typedef {object} Entry
 * @property {number} number Its number for the audio thread.
 * @property {number} line The number of its line. Places on different lines cannot be compared.
 * @property {number} lineMs Place of its first sample on the line.
 * @property {number} dueMs Its due time on the relay's clock, unwrapped.
 * @property {number} durationMs
 * @property {boolean} isSplice Whether it does not continue the frame before it.
 * @property {number} pauseMs Silence before it, from its due time; only in pace `speech`.
 * @property {number} holeMs Missing sound before it, from its media time.
 * @property {number} cutMs The part of its beginning to cut off, because that sound came in another codec already.
 * @property {number} overlapMs The part after the cut that came in another codec too and is blended with it.
 *
 * @typedef {import("./wire.js").Frame} Frame
 * @typedef {import("./messages.js").Format} Format
 *
 * @typedef {object} Taken
 * @property {Entry} entry
 * @property {Uint8Array<ArrayBuffer>} audio
 * @property {Format} format
 * @property {number} ticks Its duration in ticks of the format's clock rate.
 * @property {boolean} isFirst Whether it needs a fresh decoder, because it does not continue the frame before it.
 */

export class Intake {
  #clock;
  /** @type {import("./messages.js").Format | null} */
  #format = null;
  #isSpeech = false;
  #line = 0;
  /** @type {number | null} */
  #epoch = null;
  /** Null after a change of codec, until the new stream's first frame. @type {number | null} */
  #nextSeq = 0;
  #ticks = 0;
  /** The place on the line at which the stream's media time is 0. */
  #originMs = 0;
  /** Where on the line the old codec's sound ends, until the new codec's sound arrives. @type {number | null} */
  #seamMs = null;
  /**
   * Where the next frame is expected; null if it begins a line.
   *
   * @type {{dueMs: number, move: number, mediaMs: number, isHole: boolean} | null}
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

  /** Where a new connection can resume; null before the first frame. */
  get resumePoint() {
    return this.#epoch === null || this.#nextSeq === null
      ? null
      : { epoch: this.#epoch, after: (this.#nextSeq - 1) >>> 0 };
  }

  /** @param {import("./messages.js").Pace} pace */
  setPace(pace) {
    const isSpeech = pace === "speech";
    if (isSpeech !== this.#isSpeech) {
      this.#isSpeech = isSpeech;
      this.beginLine();
    }
  }

  /**
   * Sets the format of the next frames. Each codec has its own frame numbers, so media time shows where it continues.
   *
   * @param {Format} format
   */
  setFormat(format) {
    if (this.#format !== null && format.codec !== this.#format.codec) {
      this.#nextSeq = null;
    }
    this.#format = format;
  }

  /** @param {Format} format @returns {boolean} Whether its codec differs from the present one. */
  isOtherCodec(format) {
    return this.#format !== null && format.codec !== this.#format.codec;
  }

  /** Begins a new line, because the next frames do not continue the last ones. */
  beginLine() {
    this.#line += 1;
    this.#next = null;
    this.#seamMs = null;
  }

  /** Forgets where a new connection could resume. */
  forgetPlace() {
    this.#epoch = null;
    this.beginLine();
  }

  /**
   * Whether a connection that begins at this frame continues the numbering, with or without a hole.
   *
   * @param {number} epoch
   * @param {number} seq
   */
  continues(epoch, seq) {
    return this.#epoch === epoch && (this.#nextSeq === null || ahead(seq, this.#nextSeq) >= 0);
  }

  /**
   * Skips lost frames, so that a new connection does not ask for them.
   *
   * @param {import("./messages.js").Gap} gap
   */
  skip({ epoch, to_seq: toSeq }) {
    if (this.#epoch === epoch && (this.#nextSeq === null || ahead(toSeq, this.#nextSeq) >= 0)) {
      this.interrupt();
      this.#nextSeq = (toSeq + 1) >>> 0;
    }
  }

  /** Notes that the next frame does not continue the sound before it. */
  interrupt() {
    if (this.#next !== null) {
      this.#next.isHole = true;
    }
  }

  /** @param {number} number */
  entry(number) {
    const entry = this.#entries[number % REMEMBERED];
    return entry?.number === number ? entry : null;
  }

  /**
   * Takes a binary message apart.
   *
   * @param {ArrayBuffer} message
   * @returns {Taken[]} Its frames, except duplicates. Empty if no format is known yet.
   * @throws {RangeError} if it is not audio of this format.
   */
  take(message) {
    const format = this.#format;
    if (format === null) {
      return [];
    }
    const isOpus = format.codec === OPUS;
    const taken = [];
    for (const frame of readFrames(message, isOpus)) {
      const ticks = isOpus ? opusTicks(frame.audio) : Math.floor(frame.audio.length / (2 * format.channels));
      const isJoin = this.#nextSeq === null;
      if (this.#accept(frame)) {
        const isFirst = isJoin || this.#next === null;
        const entry = this.#place(frame, format.clock_rate, ticks, isJoin);
        this.#entries[this.#number % REMEMBERED] = entry;
        this.#number += 1;
        this.#nextSeq = (frame.seq + 1) >>> 0;
        // Entries do not include the audio, because they are remembered for minutes.
        taken.push({ entry, audio: frame.audio, format, ticks, isFirst });
      }
    }
    return taken;
  }

  /**
   * @param {Frame} frame
   * @param {number} clockRate
   * @param {number} ticks Its duration.
   * @param {boolean} isJoin Whether it is the first frame after a change of codec.
   * @returns {Entry}
   */
  #place({ mediaTime, dueMs: wireDueMs }, clockRate, ticks, isJoin) {
    if (isJoin && this.#next !== null) {
      this.#join((mediaTime * 1000) / clockRate);
    }
    const next = this.#next;
    this.#ticks = next === null || isJoin ? mediaTime : this.#ticks + ahead(mediaTime, this.#ticks);
    this.#originMs = next === null ? 0 : this.#originMs;
    const mediaMs = this.#originMs + (this.#ticks * 1000) / clockRate;
    const dueMs = this.#clock.unwrap(wireDueMs);
    const durationMs = (ticks * 1000) / clockRate;
    const endMs = mediaMs + durationMs;
    const { moves } = this.#clock;
    const pauseMs = next === null || isJoin || !this.#isSpeech ? 0 : dueMs - next.dueMs;
    const leastPauseMs = next?.move === moves ? PAUSE_MS : PAUSE_BETWEEN_CLOCKS_MS;
    const { cutMs, overlapMs } = this.#overlap(mediaMs, durationMs);
    this.#next = {
      dueMs: dueMs + durationMs,
      move: moves,
      mediaMs: Math.max(endMs, next?.mediaMs ?? endMs),
      isHole: cutMs === durationMs && next?.isHole === true,
    };
    return {
      number: this.#number,
      line: this.#line,
      lineMs: this.#isSpeech ? dueMs : mediaMs,
      dueMs,
      durationMs,
      isSplice: next === null || (next.isHole && overlapMs === 0),
      pauseMs: pauseMs >= leastPauseMs ? pauseMs : 0,
      holeMs: next === null ? 0 : Math.max(0, mediaMs - next.mediaMs),
      cutMs,
      overlapMs,
    };
  }

  /**
   * Finds where on the line the stream in the new codec begins.
   *
   * @param {number} mediaMs Media time of its first sample, which may have wrapped any number of times.
   */
  #join(mediaMs) {
    const next = this.#next;
    if (next === null) {
      return;
    }
    const apartMs = mediaMs + this.#originMs - next.mediaMs;
    const nearestMs = apartMs - MEDIA_WRAP_MS * Math.round(apartMs / MEDIA_WRAP_MS);
    if (Math.abs(nearestMs) > MOST_APART_MS) {
      this.beginLine();
      return;
    }
    this.#originMs += nearestMs - apartMs;
    this.#seamMs = next.mediaMs;
    next.isHole = true;
  }

  /**
   * Computes which part of a frame came in the old codec already.
   *
   * @param {number} mediaMs
   * @param {number} durationMs
   */
  #overlap(mediaMs, durationMs) {
    const seamMs = this.#seamMs;
    if (seamMs === null) {
      return { cutMs: 0, overlapMs: 0 };
    }
    const cutMs = Math.min(durationMs, Math.max(0, seamMs - BLEND_MS - mediaMs));
    if (cutMs === durationMs) {
      return { cutMs, overlapMs: 0 };
    }
    this.#seamMs = null;
    const overlapMs = seamMs - mediaMs - cutMs;
    return { cutMs, overlapMs: overlapMs >= SHORTEST_BLEND_MS ? overlapMs : 0 };
  }

  /** @param {Frame} frame */
  #accept({ epoch, seq }) {
    if (this.#epoch === null || epochAhead(epoch, this.#epoch) !== 0) {
      this.#epoch = epoch;
      this.beginLine();
      return true;
    }
    const lead = this.#nextSeq === null ? 0 : ahead(seq, this.#nextSeq);
    if (lead > 0 && this.#next !== null) {
      this.#next.isHole = true;
    }
    return lead >= 0;
  }
}
