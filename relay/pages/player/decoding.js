/**
 * Decodes frames and delivers their sound in order, with any decoder and however long that takes.
 *
 * Pure: functions that open a decoder are arguments. If a decoder fails, the next one decodes its outstanding packets.
 * If the last one fails, those packets are lost, and `exhaust` is called.
 *
 * Bound: at most `MOST_WAITING_MS` of frames wait. A decoder that falls further behind counts as failed.
 */

import { interleave } from "./adapter.js";
import { OPUS_CLOCK_RATE } from "./opus-packet.js";

/** More than a relay sends at once. It keeps 10 s of a channel. */
const MOST_WAITING_MS = 15_000;

/** Tolerance between a decoded packet's length and its duration: one sample at the lowest rate. */
const ROUNDING_SECONDS = 1 / 8000;

/**
 * @typedef {object} Planes A decoder's output.
 * @property {Float32Array[]} planes The samples of each channel, between -1 and 1.
 * @property {number} rate Samples per second.
 *
 * @typedef {object} DecoderEvents
 * @property {(sound: Planes) => void} output Called once per packet, in order, perhaps before
 *   `decode` returns.
 * @property {() => void} fail Called when the decoder cannot continue.
 *
 * @typedef {object} Decoder
 * @property {(packet: Uint8Array<ArrayBuffer>, ticks: number) => void} decode
 * @property {() => void} close
 *
 * @typedef {(channels: number, events: DecoderEvents) => Decoder | Promise<Decoder>} OpenDecoder
 *
 * @typedef {object} Sound
 * @property {Int16Array<ArrayBuffer>} samples Interleaved.
 * @property {number} rate
 * @property {number} channels
 *
 * @typedef {import("./intake.js").Entry} Entry
 * @typedef {{entry: Entry, isFirst: boolean, packet: Packet | null, sound: Sound | null}} Item
 * @typedef {{audio: Uint8Array<ArrayBuffer>, ticks: number, channels: number}} Packet
 */

export class Decoding {
  /** @type {OpenDecoder[]} */
  #decoders = [];
  #deliver;
  #exhaust;
  /** Undelivered frames in order. Those with sound wait for earlier ones that are being decoded. @type {Item[]} */
  #items = [];
  #waitingMs = 0;
  /** Decoders with outstanding packets. The last one takes the next packet. @type {Run[]} */
  #runs = [];
  #isDelivering = false;

  /**
   * @param {object} options
   * @param {(entry: Entry, sound: Sound) => void} options.deliver
   * @param {() => void} options.exhaust Called when no decoder is left.
   */
  constructor({ deliver, exhaust }) {
    this.#deliver = deliver;
    this.#exhaust = exhaust;
  }

  /** @param {readonly OpenDecoder[]} decoders Best first. */
  setDecoders(decoders) {
    this.#decoders = [...decoders];
  }

  /** Whether all frames have been delivered. */
  get isIdle() {
    return this.#items.length === 0;
  }

  /**
   * Takes a frame whose sound needs no decoder.
   *
   * @param {Entry} entry
   * @param {Sound} sound
   */
  takeSound(entry, sound) {
    this.#add({ entry, isFirst: false, packet: null, sound });
    this.#settle();
  }

  /**
   * Takes an Opus packet.
   *
   * @param {Entry} entry
   * @param {Packet} packet
   * @param {boolean} isFirst Whether it needs a fresh decoder, because it does not continue the packet before it.
   */
  takePacket(entry, packet, isFirst) {
    if (this.#decoders.length === 0) {
      return;
    }
    const item = { entry, isFirst, packet, sound: null };
    this.#add(item);
    this.#decode(item);
    if (this.#waitingMs > MOST_WAITING_MS) {
      this.#failOver();
    }
    this.#settle();
  }

  /** Discards undelivered frames. The decoders continue. */
  clear() {
    this.#items = [];
    this.#waitingMs = 0;
  }

  /** Closes all decoders. */
  close() {
    this.clear();
    for (const run of this.#runs) {
      run.close();
    }
    this.#runs = [];
  }

  /** @param {Item} item */
  #add(item) {
    this.#items.push(item);
    this.#waitingMs += item.entry.durationMs;
  }

  /** @param {Item} item */
  #decode(item) {
    const { packet } = item;
    if (packet === null) {
      return;
    }
    let run = this.#runs[this.#runs.length - 1];
    if (run === undefined || item.isFirst || run.channels !== packet.channels) {
      run?.retire();
      run = this.#open(packet.channels);
      if (run.isClosed) {
        // The decoder failed at once, and the next one has already taken the packet.
        return;
      }
      this.#runs.push(run);
    }
    run.take(item);
  }

  /** @param {number} channels */
  #open(channels) {
    return new Run(this.#decoders[0], channels, { settle: () => this.#settle(), fail: () => this.#failOver() });
  }

  /** Hands the outstanding packets to the next decoder. */
  #failOver() {
    for (const run of this.#runs) {
      run.close();
    }
    this.#runs = [];
    this.#decoders.shift();
    if (this.#decoders.length > 0) {
      for (const item of this.#items.filter(({ sound }) => sound === null)) {
        this.#decode(item);
      }
      return;
    }
    this.#items = this.#items.filter(({ sound }) => sound !== null);
    this.#waitingMs = this.#items.reduce((sum, { entry }) => sum + entry.durationMs, 0);
    this.#settle();
    this.#exhaust();
  }

  /** Delivers sound that is ready. */
  #settle() {
    if (this.#isDelivering) {
      return;
    }
    this.#isDelivering = true;
    for (let sound = this.#items[0]?.sound ?? null; sound !== null; sound = this.#items[0]?.sound ?? null) {
      const { entry } = /** @type {Item} */ (this.#items.shift());
      this.#waitingMs -= entry.durationMs;
      this.#deliver(entry, sound);
    }
    this.#isDelivering = false;
    this.#runs = this.#runs.filter((run) => !run.isClosed);
  }
}

/** One decoder and its packets, from the first to the last. */
class Run {
  #events;
  /** Outstanding packets, including those that wait for the decoder to open. @type {Item[]} */
  #owed = [];
  /** @type {Decoder | null} */
  #decoder = null;
  #isDecoding = false;
  #isRetired = false;
  #isClosed = false;

  /**
   * @param {OpenDecoder} open
   * @param {number} channels
   * @param {{settle: () => void, fail: () => void}} events
   */
  constructor(open, channels, events) {
    this.channels = channels;
    this.#events = events;
    this.#open(open);
  }

  get isClosed() {
    return this.#isClosed;
  }

  /** @param {Item} item */
  take(item) {
    this.#owed.push(item);
    if (this.#decoder !== null) {
      this.#decode(this.#decoder, item);
    }
  }

  /** Closes the decoder once it has decoded all its packets. */
  retire() {
    this.#isRetired = true;
    this.#closeIfDone();
  }

  close() {
    this.#isClosed = true;
    this.#decoder?.close();
    this.#decoder = null;
  }

  /** @param {OpenDecoder} open */
  async #open(open) {
    const events = { output: (/** @type {Planes} */ planes) => this.#hear(planes), fail: () => this.#fail() };
    let decoder;
    try {
      const opened = open(this.channels, events);
      // Awaiting only a promise lets a synchronous decoder produce sound at once.
      decoder = opened instanceof Promise ? await opened : opened;
    } catch {
      this.#fail();
      return;
    }
    if (this.#isClosed) {
      decoder.close();
      return;
    }
    this.#decoder = decoder;
    for (const item of [...this.#owed]) {
      this.#decode(decoder, item);
    }
    this.#events.settle();
  }

  /**
   * @param {Decoder} decoder
   * @param {Item} item
   */
  #decode(decoder, { packet }) {
    if (packet === null || this.#isClosed) {
      return;
    }
    this.#isDecoding = true;
    let hasFailed = false;
    try {
      decoder.decode(packet.audio, packet.ticks);
    } catch {
      hasFailed = true;
    }
    this.#isDecoding = false;
    if (hasFailed) {
      this.#fail();
    }
  }

  /** @param {Planes} planes */
  #hear({ planes, rate }) {
    const item = this.#owed[0];
    if (this.#isClosed || item?.packet === undefined || item.packet === null) {
      return;
    }
    const seconds = item.packet.ticks / OPUS_CLOCK_RATE;
    if (planes.length === 0 || Math.abs(planes[0].length / rate - seconds) > ROUNDING_SECONDS) {
      // The decoder skips or holds back samples, so it is unclear where its sound belongs.
      this.#fail();
      return;
    }
    this.#owed.shift();
    item.sound = { samples: interleave(planes), rate, channels: planes.length };
    this.#closeIfDone();
    if (!this.#isDecoding) {
      this.#events.settle();
    }
  }

  #closeIfDone() {
    if (this.#isRetired && this.#owed.length === 0) {
      this.close();
    }
  }

  #fail() {
    if (!this.#isClosed) {
      this.close();
      this.#events.fail();
    }
  }
}
