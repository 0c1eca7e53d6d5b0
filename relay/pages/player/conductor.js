/**
 * Plays one channel: takes what the relay says and sends, and gives orders to the audio thread.
 *
 * Pure: sockets, timers and clocks are somebody else's; all times are arguments, in milliseconds of one monotonic clock.
 * What it gives back are calls of `send` with an order for `Renderer`. Bound: while nothing is rendered it keeps the
 * target delay and `WAITING_MS` of sound, and drops the oldest.
 */

import { Arrivals } from "./arrivals.js";
import { Counts } from "./counts.js";
import { Intake } from "./intake.js";
import { RelayClock } from "./relay-clock.js";
import { Steering } from "./steering.js";
import { TargetDelay } from "./target-delay.js";

/** Kept above the target while the sound is held back. */
const WAITING_MS = 250;

/** What a new connection may bring above the target: a stall of this is caught up, not cut by the relay. */
const RESUME_MARGIN_MS = 200;

/** Two clocks that differ by more are not the same one. */
const SAME_CLOCK_MS = 1000;

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

/** @typedef {import("./intake.js").Entry & {samples: Int16Array<ArrayBuffer>}} Sound */

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
  /** @type {string | null} */
  #channel = null;
  /** @type {import("./types.js").ChannelState} */
  #channelState = "waiting";
  /** @type {import("./messages.js").Format | null} */
  #format = null;
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
   */
  constructor({ send, latency }) {
    this.#send = send;
    this.#target = new TargetDelay(latency);
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

  /** Whether it is silent because the speaker says nothing, not because something is missing. */
  get isPausing() {
    return this.#intake.isSpeech && this.#channelState === "live" && this.#isDry;
  }

  /** Whether all that came has been played. */
  get isDrained() {
    return this.#isDry && this.#deferred === null;
  }

  get heldMs() {
    return this.#report.heldSeconds * 1000;
  }

  /**
   * What a new connection to a channel asks for: to go on where this one ends, or the sound of just before.
   *
   * @param {string} channel
   * @param {number} nowMs
   * @returns {Record<string, number>}
   */
  connectQuery(channel, nowMs) {
    const target = Math.round(this.#target.at(nowMs));
    const place = channel === this.#channel ? this.#intake.resumePoint : null;
    return place === null ? { burst_ms: target } : { ...place, buffer_ms: target + RESUME_MARGIN_MS };
  }

  /** @param {import("./types.js").Latency} preset */
  setLatency(preset) {
    this.#target.choose(preset);
  }

  /**
   * What a person wants to know, all but the connection's part.
   *
   * @param {number} nowMs
   */
  stats(nowMs) {
    const relayNowMs = this.#clock.relayNow(nowMs);
    return {
      bufferMs: this.heldMs,
      targetMs: this.#target.at(nowMs),
      playoutMs: this.#playoutMs,
      // To the moment of the last report, when `#capturedMs` was heard.
      delayMs: relayNowMs === null || this.#capturedMs === null ? null : relayNowMs - (nowMs + this.#capturedMs),
      ...this.#counts.numbers,
      driftPpm: this.#steering.driftPpm,
      rate: this.#steering.rate,
    };
  }

  // What the relay says.

  /**
   * @param {import("./messages.js").Hello} message
   * @param {number} nowMs
   */
  hello(message, nowMs) {
    this.#hearClock(message.clock_ms, nowMs);
    const isSame = message.channel === this.#channel;
    if (!isSame || !(message.resumed || this.#intake.continues(message.epoch, message.next_seq))) {
      this.#begin();
    }
    this.#channel = message.channel;
    this.#greetedMs = this.#clock.unwrap(message.clock_ms);
    this.#intake.setPace(message.pace);
    this.#channelState = message.state;
    this.#setFormat(message.format);
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
        this.#setFormat(message.format);
        break;
      case "gap":
        this.#intake.skip(message);
        this.#counts.noteGap(message);
        break;
      case "clear":
        this.#deferred = null;
        this.#waiting = [];
        this.#disturb({ type: "clear" });
        break;
      case "pong":
        this.#clock.exchange(message.sent_ms, message.clock_ms, nowMs);
        break;
    }
  }

  /**
   * Takes a binary message.
   *
   * @param {ArrayBuffer} message
   * @param {number} nowMs
   * @throws {RangeError} when it is no frame.
   */
  frame(message, nowMs) {
    const entry = this.#intake.take(message);
    if (entry === null) {
      return;
    }
    const isSameLine = entry.line === this.#line;
    if (!isSameLine || (this.#isDry && !this.#intake.isSpeech)) {
      this.#line = entry.line;
      this.#arrivals.restart(this.#intake.isSpeech, isSameLine);
    }
    if (this.#isDry && this.#intake.isSpeech && this.hasPlayed && !entry.isSplice && entry.pauseMs === 0) {
      // It should have been there when the frame before it ended.
      this.#counts.noteUnderrun();
    }
    this.#isDry = false;
    this.#arrivals.note(entry.lineMs, entry.dueMs, nowMs, entry.dueMs < this.#greetedMs);
    const delayMs = this.#arrivals.takeObservation(nowMs);
    if (delayMs !== null) {
      this.#target.observe(delayMs);
    }
    this.#counts.noteHole(entry.holeMs);
    if (!this.#isRendering) {
      this.#wait(entry, nowMs);
    } else if (this.#deferred !== null) {
      this.#deferred.push(entry);
    } else {
      this.#deliver(entry);
    }
  }

  /** Nothing more comes; what is there is played to its end. */
  end() {
    this.#isOver = true;
  }

  // What the audio thread says.

  /**
   * Begins to give sound to an audio thread that knows nothing yet, or stops because it does not run.
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
    if (this.#format !== null) {
      this.#sendFormat();
      this.#disturb({ type: "clear" });
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const entry of waiting) {
      this.#deliver(entry);
    }
  }

  /** Asks where the audio thread is. */
  ask() {
    if (this.#isRendering) {
      this.#asked += 1;
      this.#send({ type: "report", id: this.#asked });
    }
  }

  /**
   * Takes the answer to `ask`.
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
    this.#isDry = isIdle && id > this.#deliveredAt && this.#deferred === null;
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

  /**
   * @param {number} clockMs
   * @param {number} nowMs
   */
  #hearClock(clockMs, nowMs) {
    const fastestMs = this.#clock.fastestWayMs;
    if (fastestMs !== null && Math.abs(nowMs - fastestMs - this.#clock.unwrap(clockMs)) > SAME_CLOCK_MS) {
      this.#clock.restart();
      if (this.#intake.isSpeech) {
        this.#intake.beginLine();
      }
    }
    this.#clock.hear(clockMs, nowMs);
  }

  #begin() {
    this.#intake.forgetPlace();
    this.#waiting = [];
    this.#deferred = null;
    this.#capturedMs = null;
    this.#steering.begin();
    this.#disturb({ type: "clear" });
  }

  /** @param {import("./messages.js").Format | null} format */
  #setFormat(format) {
    if (format === null) {
      return;
    }
    const isOther = format.rate !== this.#format?.rate || format.channels !== this.#format.channels;
    this.#intake.setFormat(format);
    this.#format = format;
    if (!isOther) {
      return;
    }
    if (!this.#isRendering) {
      this.#waiting = [];
    } else if (this.#report.mode === "silent") {
      this.#sendFormat();
    } else {
      // What is held of the old format is played first.
      this.#deferred = [];
    }
  }

  #sendFormat() {
    if (this.#format !== null) {
      this.#send({ type: "format", rate: this.#format.rate, channels: this.#format.channels });
    }
  }

  /**
   * Gives an order that makes the answers to earlier questions worthless.
   *
   * @param {import("./messages.js").Order} order
   */
  #disturb(order) {
    if (this.#isRendering) {
      this.#send(order);
      this.#disturbedAt = this.#asked;
    }
  }

  /**
   * @param {Sound} entry
   * @param {number} nowMs
   */
  #wait(entry, nowMs) {
    if (this.#waiting[0]?.line !== entry.line) {
      // Places on two lines can not be compared, and nobody misses what nobody has heard.
      this.#waiting = [];
    }
    this.#waiting.push(entry);
    const oldestMs = nowMs - this.#arrivals.baseMs - this.#target.at(nowMs) - WAITING_MS;
    while (this.#waiting.length > 0 && this.#waiting[0].lineMs + this.#waiting[0].durationMs < oldestMs) {
      this.#waiting.shift();
    }
  }

  /** @param {Sound} entry */
  #deliver(entry) {
    const isHeard = this.#report.mode !== "silent";
    // A pause is where a lag can be made up for without anybody noticing.
    const pauseMs = isHeard ? Math.max(0, entry.pauseMs - Math.max(0, this.#steering.errorMs)) : 0;
    const { number, samples, isSplice } = entry;
    this.#deliveredAt = this.#asked;
    this.#send({ type: "audio", frame: number, samples, splice: isSplice, pause: pauseMs / 1000 }, [samples.buffer]);
  }

  /** @param {Sound[]} entries */
  #deliverDeferred(entries) {
    this.#deferred = null;
    this.#sendFormat();
    for (const entry of entries) {
      this.#deliver(entry);
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
    // Measured where the sound that is there ends: a gap in it makes up for its part of a delay all by itself.
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
   * Notes when what is heard was captured.
   *
   * @param {import("./messages.js").Report} report
   * @param {number} nowMs
   */
  #locate({ frame, offsetSeconds }, nowMs) {
    const entry = this.#intake.entry(frame);
    if (entry !== null && entry.line === this.#line) {
      // A frame of pace live is due when it arrives, which is not before its last sample was captured.
      const capturedMs = entry.dueMs - (this.#intake.isSpeech ? 0 : entry.durationMs);
      this.#capturedMs = capturedMs + offsetSeconds * 1000 - nowMs;
    }
  }
}
