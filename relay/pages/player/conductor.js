/**
 * Plays one channel: takes the relay's messages and audio, and sends orders to the audio thread.
 *
 * Pure: it has no sockets, timers or clocks. All times are arguments, in milliseconds of one monotonic clock, and its
 * output is calls of `send` with orders for `Renderer`. Bound: while nothing is rendered, it keeps the target delay
 * plus `WAITING_MS` of sound and drops the oldest beyond that.
 */

import { Adapter, isSameFormat } from "./adapter.js";
import { Arrivals } from "./arrivals.js";
import { Counts } from "./counts.js";
import { Decoding } from "./decoding.js";
import { Intake } from "./intake.js";
import { RelayClock } from "./relay-clock.js";
import { Steering } from "./steering.js";
import { TargetDelay } from "./target-delay.js";
import { OPUS, PCM } from "./wire.js";

/** Sound to keep beyond the target delay while the audio thread does not run. */
const WAITING_MS = 250;

/** Sound that a resumed connection may deliver beyond the target. The relay does not cut off a stall of this length. */
const RESUME_MARGIN_MS = 200;

/** @type {Readonly<import("./messages.js").Report>} */
const NOTHING_YET = Object.freeze({
  mode: "silent",
  frame: -1,
  offsetSeconds: 0,
  newest: -1,
  heldSeconds: 0,
  underruns: 0,
  concealedSeconds: 0,
  lostSeconds: 0,
});

/** @type {Readonly<{samples: Int16Array<ArrayBuffer>, overlap: number}>} */
const NOTHING_SHORT = Object.freeze({ samples: new Int16Array(0), overlap: 0 });

/** @typedef {import("./intake.js").Entry & import("./decoding.js").Sound} Sound */

export class Conductor {
  #send;
  #clock = new RelayClock();
  #intake = new Intake(this.#clock);
  #arrivals = new Arrivals(this.#clock);
  #counts = new Counts();
  #steering = new Steering({
    arrivals: this.#arrivals,
    counts: this.#counts,
    send: (order) => this.#send(order),
    disturb: (order) => this.#disturb(order),
  });
  #target;
  #decoding;
  /** @type {string | null} */
  #channel = null;
  /** @type {import("./types.js").ChannelState} */
  #channelState = "waiting";
  /** @type {import("./messages.js").Format | null} */
  #format = null;
  /** The format that the audio thread expects. @type {import("./adapter.js").SoundFormat | null} */
  #voice = null;
  /** Converts sound in another format to that format. @type {Adapter | null} */
  #adapter = null;
  /** Samples per channel of the last delivered sound that the adapter still holds. */
  #missing = 0;
  /** Sound that is too short for its blend and waits for the sound after it. */
  #short = NOTHING_SHORT;
  /** The line of the last delivered sound. */
  #deliveredLine = -1;
  #line = -1;
  #greetedMs = -Infinity;
  #isRendering = false;
  /** @type {Sound[]} */
  #waiting = [];
  /** @type {Sound[] | null} */
  #deferred = null;
  /** @type {import("./messages.js").Report} */
  #report = NOTHING_YET;
  #asked = 0;
  #deliveredAt = 0;
  /** Whether the audio thread may hold sound. */
  #isHolding = false;
  #arrivedMs = 0;
  #disturbedAt = 0;
  #isDry = true;
  #isOver = false;
  #playoutMs = 0;
  /** @type {number | null} */
  #capturedMs = null;

  /**
   * @param {object} options
   * @param {(order: import("./messages.js").Order | import("./messages.js").Question, transfer?: ArrayBuffer[]) => void} options.send
   * @param {import("./types.js").Latency} options.latency
   * @param {() => void} [options.exhaust] Called when no decoder is left and Opus can no longer be played.
   */
  constructor({ send, latency, exhaust = () => {} }) {
    this.#send = send;
    this.#target = new TargetDelay(latency);
    this.#decoding = new Decoding({ exhaust, deliver: (entry, sound) => this.#hear({ ...entry, ...sound }) });
  }

  /** @param {readonly import("./decoding.js").OpenDecoder[]} decoders Decoders for Opus, best first. */
  setDecoders(decoders) {
    this.#decoding.setDecoders(decoders);
  }

  get channelState() {
    return this.#channelState;
  }

  /** "silent", "playing" or "concealing". */
  get mode() {
    return this.#report.mode;
  }

  /** Whether this channel has been heard. */
  get hasPlayed() {
    return this.#steering.hasPlayed;
  }

  /** Whether it is silent because the speaker pauses, and not because audio is missing. */
  get isPausing() {
    return this.#intake.isSpeech && this.#channelState === "live" && this.#isDry;
  }

  /** Whether everything received has been played. */
  get isDrained() {
    return this.#isDry && this.#deferred === null && this.#decoding.isIdle;
  }

  /** The codec of the incoming audio; null if unknown. */
  get codec() {
    return this.#format?.codec ?? null;
  }

  get heldMs() {
    return this.#report.heldSeconds * 1000;
  }

  /**
   * Returns the query of a new connection: to resume where this one ends, or to start with a burst of recent sound.
   *
   * @param {string} channel
   * @param {number} nowMs
   * @returns {Record<string, number | string>}
   */
  connectQuery(channel, nowMs) {
    const target = Math.round(this.#target.at(nowMs));
    const place = channel === this.#channel ? this.#intake.resumePoint : null;
    if (place === null) {
      return { burst_ms: target };
    }
    return { ...place, after_codec: this.codec ?? PCM, buffer_ms: target + RESUME_MARGIN_MS };
  }

  /** The delay that the network requires, without the relay's gathering. */
  get networkMs() {
    return this.#target.networkMs;
  }

  /** @param {import("./types.js").Latency} preset */
  setLatency(preset) {
    this.#target.choose(preset);
  }

  /**
   * Returns the player's statistics, except those of the connection.
   *
   * @param {number} nowMs
   */
  stats(nowMs) {
    const relayNowMs = this.#clock.relayNow(nowMs);
    return {
      bufferMs: this.heldMs,
      targetMs: this.#target.at(nowMs),
      playoutMs: this.#playoutMs,
      codec: this.codec,
      delayMs: relayNowMs === null || this.#capturedMs === null ? null : relayNowMs - (nowMs + this.#capturedMs),
      ...this.#counts.numbers,
      driftPpm: this.#steering.driftPpm,
      rate: this.#steering.rate,
    };
  }

  // Input from the relay.

  /**
   * @param {import("./messages.js").Hello} message
   * @param {number} nowMs
   */
  hello(message, nowMs) {
    this.#clock.greet(message.clock_id, message.clock_ms, nowMs);
    const isSame = message.channel === this.#channel;
    if (message.format !== null) {
      this.#intake.setFormat(message.format);
    }
    if (!isSame || !(message.resumed || this.#intake.continues(message.epoch, message.next_seq))) {
      this.#begin();
    }
    this.#channel = message.channel;
    this.#greetedMs = this.#clock.unwrap(message.clock_ms);
    this.#intake.setPace(message.pace);
    this.#channelState = message.state;
    this.#format = message.format ?? this.#format;
    this.#setGathering(message);
  }

  /**
   * @param {import("./messages.js").ControlMessage} message
   * @param {number} nowMs
   */
  message(message, nowMs) {
    switch (message.type) {
      case "state":
        this.#intake.setPace(message.pace ?? (this.#intake.isSpeech ? "speech" : "live"));
        this.#channelState = message.state;
        break;
      case "format":
        this.#intake.setFormat(message.format);
        this.#format = message.format;
        break;
      case "gap":
        this.#intake.skip(message);
        this.#counts.noteGap(message);
        break;
      case "clear":
        this.#intake.interrupt();
        this.#discard();
        break;
      case "delivery":
        this.#setGathering(message);
        break;
      case "pong":
        this.#clock.exchange(message.sent_ms, message.clock_ms, nowMs);
        break;
    }
  }

  /**
   * Handles a binary message.
   *
   * @param {ArrayBuffer} message
   * @param {number} nowMs
   * @throws {RangeError} if it is not audio.
   */
  frame(message, nowMs) {
    this.#arrivedMs = nowMs;
    for (const taken of this.#intake.take(message)) {
      this.#note(taken.entry, nowMs);
      this.#decode(taken);
    }
  }

  /**
   * Records the arrival of a frame.
   *
   * @param {import("./intake.js").Entry} entry
   * @param {number} nowMs
   */
  #note(entry, nowMs) {
    const isSameLine = entry.line === this.#line;
    if (!isSameLine || (this.#isDry && !this.#intake.isSpeech)) {
      this.#line = entry.line;
      this.#arrivals.restart(this.#intake.isSpeech, isSameLine);
    }
    if (this.#isDry && this.#intake.isSpeech && this.hasPlayed && !entry.isSplice && entry.pauseMs === 0) {
      // The frame should have arrived before the end of the previous one.
      this.#counts.noteUnderrun();
    }
    this.#isDry = false;
    this.#arrivals.note(entry.lineMs, entry.dueMs, nowMs, entry.dueMs < this.#greetedMs);
    const delayMs = this.#arrivals.takeObservation(nowMs);
    if (delayMs !== null) {
      this.#target.observe(delayMs);
    }
    this.#counts.noteHole(entry.holeMs);
  }

  /** @param {import("./intake.js").Taken} taken */
  #decode({ entry, audio, format, ticks, isFirst }) {
    const { rate, channels } = format;
    if (format.codec === OPUS) {
      this.#decoding.takePacket(entry, { audio, ticks, channels }, isFirst);
    } else {
      this.#decoding.takeSound(entry, { samples: new Int16Array(audio.buffer, audio.byteOffset), rate, channels });
    }
  }

  /**
   * Takes the decoded sound of a frame.
   *
   * @param {Sound} sound
   */
  #hear(sound) {
    if (!this.#isRendering) {
      this.#wait(sound);
    } else if (this.#deferred !== null) {
      this.#deferred.push(sound);
    } else if (this.#isFitting(sound)) {
      this.#deliver(sound);
    } else {
      // The audio thread first plays the sound that it holds in the old format.
      this.#deferred = [sound];
    }
  }

  /** Declares that no more audio follows. The present sound plays to its end. */
  end() {
    this.#isOver = true;
  }

  /** Closes the decoders. */
  close() {
    this.#decoding.close();
  }

  // Input from the audio thread.

  /**
   * Starts to send sound to a new audio thread, or stops while none runs.
   *
   * @param {boolean} isRendering
   */
  setRendering(isRendering) {
    this.#isRendering = isRendering;
    this.#steering.begin();
    this.#deferred = null;
    this.#report = NOTHING_YET;
    this.#isDry = this.#waiting.length === 0;
    if (!isRendering) {
      return;
    }
    this.#voice = null;
    this.#adapter = null;
    this.#clear();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const entry of waiting) {
      this.#deliver(entry);
    }
  }

  /** Asks the audio thread for a report. */
  ask() {
    if (this.#isRendering) {
      this.#asked += 1;
      this.#send({ type: "report", id: this.#asked });
    }
  }

  /**
   * Handles the answer to `ask`.
   *
   * @param {import("./messages.js").Answer} answer
   * @param {number} nowMs
   */
  answer({ id, report }, nowMs) {
    if (!this.#isRendering || report === null) {
      return;
    }
    this.#report = report;
    this.#counts.noteReport(report);
    if (id <= this.#disturbedAt) {
      return;
    }
    const isIdle = report.mode === "silent" && report.heldSeconds === 0;
    this.#isDry = isIdle && id > this.#deliveredAt && this.#deferred === null && this.#decoding.isIdle;
    this.#isHolding &&= !(isIdle && id > this.#deliveredAt);
    if (isIdle && this.#deferred !== null) {
      this.#deliverDeferred(this.#deferred);
      return;
    }
    const measurement = this.#measure(report, nowMs);
    if (report.mode !== "silent") {
      this.#steering.follow(measurement);
    } else if (report.heldSeconds > 0) {
      this.#steering.considerStart(measurement);
    }
  }

  /** @param {{coalesce_ms?: number, packet_ms?: number}} granted */
  #setGathering({ coalesce_ms: coalesceMs = 0, packet_ms: packetMs = 0 }) {
    const gatheringMs = Math.max(coalesceMs, this.codec === OPUS ? packetMs : 0);
    this.#target.setGathering(gatheringMs);
    this.#arrivals.setGathering(gatheringMs);
  }

  #begin() {
    this.#intake.forgetPlace();
    this.#capturedMs = null;
    this.#steering.begin();
    this.#discard();
  }

  /** Discards all sound that has not been heard. */
  #discard() {
    this.#decoding.clear();
    this.#waiting = [];
    this.#deferred = null;
    this.#clear();
  }

  #clear() {
    this.#disturb({ type: "clear" });
    this.#isHolding = false;
  }

  /**
   * Sends an order that makes the answers to earlier questions obsolete.
   *
   * @param {import("./messages.js").Order} order
   */
  #disturb(order) {
    if (this.#isRendering) {
      this.#send(order);
      this.#disturbedAt = this.#asked;
    }
  }

  /** @param {Sound} sound */
  #wait(sound) {
    if (this.#waiting[0]?.line !== sound.line) {
      // Places on different lines cannot be compared, and nothing of the old line has been heard yet.
      this.#waiting = [];
    }
    this.#waiting.push(sound);
    const nowMs = this.#arrivedMs;
    const oldestMs = nowMs - (this.#arrivals.baseMs ?? nowMs) - this.#target.at(nowMs) - WAITING_MS;
    while (this.#waiting.length > 0 && this.#waiting[0].lineMs + this.#waiting[0].durationMs < oldestMs) {
      this.#waiting.shift();
    }
  }

  /**
   * Whether the audio thread can take a sound now: because it has the format of the held sound, because it continues
   * the same line, or because the audio thread holds none.
   *
   * @param {Sound} sound
   */
  #isFitting(sound) {
    const voice = this.#voice;
    return voice === null || isSameFormat(sound, voice) || sound.line === this.#deliveredLine || !this.#isHolding;
  }

  /** @param {Sound} sound */
  #deliver(sound) {
    const isHeard = this.#report.mode !== "silent";
    // Shortening a pause makes up for a lag without being noticed.
    const pauseMs = isHeard ? Math.max(0, sound.pauseMs - Math.max(0, this.#steering.errorMs)) : 0;
    const { samples, overlap } = this.#fit(sound);
    this.#deliveredLine = sound.line;
    if (samples.length === 0) {
      return;
    }
    this.#deliveredAt = this.#asked;
    this.#isHolding = true;
    const { number: frame, isSplice: splice } = sound;
    this.#send({ type: "audio", frame, samples, splice, overlap, pause: pauseMs / 1000 }, [samples.buffer]);
  }

  /**
   * Converts a sound to the audio thread's format and cuts off the part that was already sent in another codec.
   *
   * @param {Sound} sound
   */
  #fit({ rate, channels, samples, isSplice, cutMs, overlapMs }) {
    const format = { rate, channels };
    if (this.#voice === null || !(isSameFormat(format, this.#voice) || this.#isHolding)) {
      this.#voice = format;
      this.#missing = 0;
      this.#short = NOTHING_SHORT;
      this.#send({ type: "format", ...format });
    }
    const voice = this.#voice;
    if (isSameFormat(format, voice)) {
      this.#adapter = null;
    } else if (this.#adapter === null || !isSameFormat(format, this.#adapter.from)) {
      this.#adapter = new Adapter(format, voice);
    }
    const { samples: fitting, lead } = this.#adapter?.convert(samples) ?? { samples, lead: 0 };
    const isJoin = isSplice || cutMs > 0 || overlapMs > 0;
    const cut = isJoin ? lead + Math.round((cutMs * voice.rate) / 1000) : 0;
    const wanted = Math.max(0, Math.round((overlapMs * voice.rate) / 1000) - this.#missing);
    const overlap = wanted + this.#short.overlap;
    const fitted = concatenate(this.#short.samples, fitting.subarray(cut * voice.channels));
    const isShort = overlap * voice.channels > fitted.length;
    this.#short = isShort ? { samples: fitted, overlap } : NOTHING_SHORT;
    if (isShort || fitted.length === 0) {
      return NOTHING_SHORT;
    }
    this.#missing = this.#adapter?.lag ?? 0;
    return { samples: fitted, overlap };
  }

  /** @param {Sound[]} sounds */
  #deliverDeferred(sounds) {
    this.#deferred = null;
    this.#isHolding = false;
    for (const sound of sounds) {
      this.#hear(sound);
    }
  }

  /**
   * @returns {import("./steering.js").Measurement}
   * @param {import("./messages.js").Report} report
   * @param {number} nowMs
   */
  #measure(report, nowMs) {
    this.#locate(report, nowMs);
    const { isSpeech } = this.#intake;
    const isLast = this.#isOver || this.#channelState !== "live";
    const newest = this.#intake.entry(report.newest);
    const { baseMs } = this.#arrivals;
    // Measured at the end of the held sound, because a gap inside it reduces the delay by its own length.
    const isKnown = newest !== null && newest.line === this.#line && baseMs !== null;
    const playoutMs = isKnown ? nowMs - baseMs - newest.lineMs - newest.durationMs + this.heldMs : null;
    this.#playoutMs = playoutMs ?? this.#playoutMs;
    return {
      nowMs,
      playoutMs,
      heldMs: this.heldMs,
      frameMs: newest?.durationMs ?? 0,
      targetMs: this.#target.at(nowMs),
      isLast,
      isExpecting: !isLast && !isSpeech && this.#deferred === null,
      isSpeech,
    };
  }

  /**
   * Computes when the sound that is heard now was captured.
   *
   * @param {import("./messages.js").Report} report
   * @param {number} nowMs
   */
  #locate({ frame, offsetSeconds }, nowMs) {
    const entry = this.#intake.entry(frame);
    if (entry !== null && entry.line === this.#line) {
      // In pace `live`, a frame is due when it reaches the relay, which is not before its last sample was captured.
      const capturedMs = entry.dueMs + entry.cutMs - (this.#intake.isSpeech ? 0 : entry.durationMs);
      this.#capturedMs = capturedMs + offsetSeconds * 1000 - nowMs;
    }
  }
}

/**
 * @param {Int16Array<ArrayBuffer>} first
 * @param {Int16Array<ArrayBuffer>} second
 */
function concatenate(first, second) {
  if (first.length === 0) {
    return second;
  }
  const both = new Int16Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
