/**
 * What becomes of a frame between the socket and the audio thread: numbering, place on the line, splices and pauses.
 *
 * Pure. Invariants: frames leave in the order of their numbers and each at most once; numbers given to the audio thread
 * count up from 0 and the last `REMEMBERED` of them can be looked up.
 */

import { opusTicks, OPUS_CLOCK_RATE } from "./opus-packet.js";
import { ahead, epochAhead, OPUS, readFrames } from "./wire.js";

/** As many as the audio thread remembers. */
const REMEMBERED = 4096;

/** A due time is rounded to a millisecond; only a larger step is a pause. */
const PAUSE_MS = 5;

/** Where a stream goes on in another codec, the sound of both is blended for so long, if both have it. */
const BLEND_MS = 10;

/** What is shorter than this is too short to blend. */
const SHORTEST_BLEND_MS = 1;

/** Media time of Opus wraps after this, that of any other codec later. */
const MEDIA_WRAP_MS = (2 ** 32 * 1000) / OPUS_CLOCK_RATE;

/** A stream in another codec whose media time is further away than this has nothing to do with the one before. */
const MOST_APART_MS = 60_000;

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
 * @property {number} cutMs How much of its beginning is not to be heard, because it was there in another codec.
 * @property {number} overlapMs How much of what comes then was there as well, and is to be blended with it.
 *
 * @typedef {import("./wire.js").Frame} Frame
 * @typedef {import("./messages.js").Format} Format
 *
 * @typedef {object} Taken
 * @property {Entry} entry
 * @property {Uint8Array<ArrayBuffer>} audio
 * @property {Format} format
 * @property {number} ticks Its duration, in ticks of the format's clock rate.
 * @property {boolean} isFirst Whether it does not follow the frame before it in the same stream, so that a decoder begins.
 */

export class Intake {
  #clock;
  /** @type {import("./messages.js").Format | null} */
  #format = null;
  #isSpeech = false;
  #line = 0;
  /** @type {number | null} */
  #epoch = null;
  /** Null while the stream's numbers are not known, because it has just gone on in another codec. @type {number | null} */
  #nextSeq = 0;
  #ticks = 0;
  /** Where on the line the stream's media time is 0. */
  #originMs = 0;
  /** Where on the line the sound in the codec before ends, until the sound in the new one is there. @type {number | null} */
  #seamMs = null;
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
   * Takes the format of what comes. Another codec has numbers of its own; where it goes on, its media time says.
   *
   * @param {Format} format
   */
  setFormat(format) {
    if (this.#format !== null && format.codec !== this.#format.codec) {
      this.#nextSeq = null;
    }
    this.#format = format;
  }

  /** @param {Format} format @returns {boolean} whether it is another codec than that of what came so far. */
  isOtherCodec(format) {
    return this.#format !== null && format.codec !== this.#format.codec;
  }

  /** Begins a line of its own: what comes has nothing to do with what was. */
  beginLine() {
    this.#line += 1;
    this.#next = null;
    this.#seamMs = null;
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
    return this.#epoch === epoch && (this.#nextSeq === null || ahead(seq, this.#nextSeq) >= 0);
  }

  /**
   * Notes that frames are lost, so that a connection that breaks now does not ask for them.
   *
   * @param {import("./messages.js").Gap} gap
   */
  skip({ epoch, to_seq: toSeq }) {
    if (this.#epoch === epoch && (this.#nextSeq === null || ahead(toSeq, this.#nextSeq) >= 0)) {
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
   * @returns {Taken[]} without the frames that were there already; none before there is a format.
   * @throws {RangeError} when it is no audio of this format.
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
        // Only the caller keeps the audio: what is remembered outlives it by minutes.
        taken.push({ entry, audio: frame.audio, format, ticks, isFirst });
      }
    }
    return taken;
  }

  /**
   * @param {Frame} frame
   * @param {number} clockRate
   * @param {number} ticks Its duration.
   * @param {boolean} isJoin Whether the stream goes on with it in another codec.
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
    const pauseMs = next === null || isJoin || !this.#isSpeech ? 0 : dueMs - next.dueMs;
    const { cutMs, overlapMs } = this.#overlap(mediaMs, durationMs);
    this.#next = {
      dueMs: dueMs + durationMs,
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
      pauseMs: pauseMs >= PAUSE_MS ? pauseMs : 0,
      holeMs: next === null ? 0 : Math.max(0, mediaMs - next.mediaMs),
      cutMs,
      overlapMs,
    };
  }

  /**
   * Finds where on the line the stream in the new codec begins.
   *
   * @param {number} mediaMs Media time of its first sample, which has wrapped at any time.
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
   * Tells what of a frame was there in the codec before.
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
