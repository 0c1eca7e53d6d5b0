/**
 * Simulates a relay, a network, a conductor and an audio thread on a virtual clock.
 *
 * A trace of arrivals stands for the relay and the network. Conductor and renderer are the real player's, without
 * sockets, Worker and AudioWorklet. Messages between them take as long as between threads, and the renderer works in
 * bursts, as a sound card's callback does.
 */

import { Conductor } from "../../../relay/pages/player/conductor.js";
import { Renderer } from "../../../relay/pages/player/renderer.js";

const ASK_EVERY_MS = 50;
const PING_EVERY_MS = 2000;
const BURST_SECONDS = 0.0107;
const BLOCK = 128;
const TO_AUDIO_MS = 1;
const FROM_AUDIO_MS = 2;

/** Start of the relay's clock: just before the 32-bit counter wraps around. */
export const RELAY_CLOCK_MS = 4_294_960_000;

const AMPLITUDE = 0.5;

export class Simulation {
  #trace;
  #options;
  #conductor;
  #renderer;
  #events = [];
  #order = 0;
  #deviceRate;
  #blocks = 0;
  #recording = [];
  #left = new Float32Array(BLOCK);
  #right = new Float32Array(BLOCK);
  #sent = 0;
  #connection = 0;
  #aheadMs = 0;
  now = 0;
  /** One row for each answer of the audio thread: {now, mode, held, playout, target, error, rate, jumps, underruns, heardMs}. */
  rows = [];
  orders = [];

  /**
   * @param {import("./trace.js").Trace} trace
   * @param {object} [options]
   * @param {"low" | "balanced" | "stable"} [options.latency]
   * @param {number} [options.rate] Sample rate of the sound.
   * @param {number} [options.deviceRate]
   * @param {number} [options.devicePpm] How much faster than its nominal rate the sound card runs.
   * @param {boolean} [options.record] Whether to keep the output.
   * @param {string} [options.clockId] The id of the relay's clock.
   * @param {(index: number) => number} [options.sound] Returns sample `index` of the broadcast, -1 to 1.
   */
  constructor(trace, options = {}) {
    this.#trace = trace;
    this.#options = { latency: "balanced", rate: 16_000, deviceRate: 48_000, devicePpm: 0, record: false, ...options };
    this.#options.sound ??= tone(997, this.#options.rate);
    this.#deviceRate = this.#options.deviceRate * (1 + this.#options.devicePpm * 1e-6);
    this.#renderer = new Renderer(this.#options.deviceRate);
    this.#conductor = new Conductor({
      latency: this.#options.latency,
      send: (order) => {
        this.orders.push({ now: this.now, ...order });
        this.#at(this.now + TO_AUDIO_MS, () => this.#hear(order));
      },
    });
  }

  get conductor() {
    return this.#conductor;
  }

  get stats() {
    return this.#conductor.stats(this.now);
  }

  /** The output, at the device's rate. */
  get recording() {
    return this.#recording;
  }

  /** Runs until `untilMs`. Another call continues from there. */
  run(untilMs) {
    if (this.format === undefined) {
      this.#begin();
    }
    const frames = this.#trace.frames;
    while (true) {
      const frameMs = this.#sent < frames.length ? frames[this.#sent].arrivalMs : Infinity;
      const eventMs = this.#events[0]?.atMs ?? Infinity;
      if (Math.min(frameMs, eventMs) > untilMs) {
        break;
      }
      if (frameMs <= eventMs) {
        // Rounding can make a sum slightly smaller than the last one. Without `max`, messages could change their order.
        this.now = Math.max(this.now, frameMs);
        this.#deliver(frames[this.#sent]);
        this.#sent += 1;
      } else {
        const { atMs, action } = this.#events.shift();
        this.now = atMs;
        action();
      }
    }
    this.now = untilMs;
  }

  /** Delivers a control message to the conductor now. */
  say(message) {
    this.#conductor.message(message, this.now);
  }

  at(ms, action) {
    this.#at(ms, action);
  }

  #begin() {
    const { rate, channels = 1 } = this.#options;
    const format = { codec: "pcm_s16le", rate, channels, clock_rate: rate };
    this.format = format;
    this.#conductor.setRendering(true);
    this.#greet(this.#options.clockId, 0);
    this.#every(ASK_EVERY_MS, () => this.#conductor.ask());
    this.#every(PING_EVERY_MS, () => this.#ping());
    this.#renderBurst();
  }

  /**
   * Lets the player resume at another relay, or at the same one. What arrives meanwhile is the trace's business.
   *
   * @param {number} atMs When the greeting arrives.
   * @param {object} relay
   * @param {string} [relay.clockId]
   * @param {number} [relay.aheadMs] Its clock minus the first relay's.
   * @param {number} [relay.lateMs] By how much longer than a fast message the greeting takes.
   */
  resume(atMs, { clockId, aheadMs = 0, lateMs = 0 }) {
    this.#at(atMs, () => {
      this.#aheadMs = aheadMs;
      this.#greet(clockId, lateMs);
    });
  }

  #greet(clockId, lateMs) {
    this.#connection += 1;
    const { pace = "live", wayMs = 10 } = this.#trace;
    const place = { epoch: 7, next_seq: this.#sent, resumed: this.#sent > 0 };
    const clock = { clock_ms: this.#relayMs(this.now - wayMs - lateMs), clock_id: clockId };
    const channel = { channel: "main", state: "live", pace, format: this.format };
    this.#conductor.hello({ type: "hello", ...channel, ...place, ...clock }, this.now);
    this.#ping();
  }

  #ping() {
    const { wayMs = 10, arriving = (ms) => ms } = this.#trace;
    const connection = this.#connection;
    const sentMs = this.now;
    const clockMs = this.#relayMs(sentMs + wayMs);
    this.#at(arriving(sentMs + 2 * wayMs), () => {
      if (connection === this.#connection) {
        this.say({ type: "pong", sent_ms: sentMs, clock_ms: clockMs });
      }
    });
  }

  #relayMs(ms) {
    return Math.floor(RELAY_CLOCK_MS + ms + this.#aheadMs) >>> 0;
  }

  #every(intervalMs, action) {
    const tick = () => {
      action();
      this.#at(this.now + intervalMs, tick);
    };
    this.#at(this.now + intervalMs, tick);
  }

  #deliver(frame) {
    if (frame.gap) {
      this.say(frame.gap);
    }
    const { rate, sound } = this.#options;
    const ticks = Math.round((frame.mediaMs * rate) / 1000);
    const count = Math.round((frame.durationMs * rate) / 1000);
    const message = new ArrayBuffer(16 + 2 * count);
    const header = new DataView(message);
    header.setUint8(0, 1);
    header.setUint16(2, frame.epoch ?? 7);
    header.setUint32(4, frame.seq);
    header.setUint32(8, ticks);
    header.setUint32(12, this.#relayMs(frame.dueMs));
    const samples = new Int16Array(message, 16);
    for (let i = 0; i < count; i += 1) {
      samples[i] = Math.round(32767 * sound(ticks + i));
    }
    this.#conductor.frame(message, this.now);
  }

  #hear(order) {
    if (order.type !== "report") {
      this.#renderer.obey(order);
      return;
    }
    const answer = { id: order.id, report: this.#renderer.report() };
    this.#at(this.now + FROM_AUDIO_MS, () => {
      this.#conductor.answer(answer, this.now);
      const stats = this.#conductor.stats(this.now);
      const error = stats.playoutMs - stats.targetMs;
      const { frame = -1, offsetSeconds = 0 } = answer.report ?? {};
      const heardMs = frame < 0 ? null : this.#trace.frames[frame].mediaMs + 1000 * offsetSeconds;
      this.rows.push({ now: this.now, mode: this.#conductor.mode, ...stats, error, heardMs });
    });
  }

  #renderBurst() {
    const blocks = Math.max(1, Math.round((BURST_SECONDS * this.#deviceRate) / BLOCK));
    for (let block = 0; block < blocks; block += 1) {
      this.#renderer.render(this.#left, this.#right);
      this.#blocks += 1;
      if (this.#options.record) {
        this.#recording.push(...this.#left);
      }
      this.#options.tap?.(this.#left, this.now);
    }
    this.#at((this.#blocks * BLOCK * 1000) / this.#deviceRate, () => this.#renderBurst());
  }

  #at(atMs, action) {
    this.#order += 1;
    const event = { atMs, order: this.#order, action };
    let index = this.#events.length;
    while (index > 0 && this.#events[index - 1].atMs > atMs) {
      index -= 1;
    }
    this.#events.splice(index, 0, event);
  }
}

/** A tone of a frequency in Hz at half of full scale. */
export function tone(frequency, rate) {
  return (index) => AMPLITUDE * Math.sin((2 * Math.PI * ((frequency * index) % rate)) / rate);
}
