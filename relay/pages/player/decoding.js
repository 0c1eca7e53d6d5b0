/**
 * Turns frames into sound, in their order, whatever decodes them and however long that takes.
 *
 * Pure: the ways to open a decoder are handed in. When one decoder fails, the next one decodes what the first still owes.
 * When the last one fails, the packets are lost, and `exhaust` is called.
 *
 * Bound: the frames that wait last at most `MOST_WAITING_MS`. A decoder that owes more counts as failed.
 */

import { interleave } from "./adapter.js";
import { OPUS_CLOCK_RATE } from "./opus-packet.js";

/** More than a relay sends at once: it keeps 10 s of a channel. */
const MOST_WAITING_MS = 15_000;

/** By so much, the length of a decoded packet may differ from its duration: a sample at the lowest rate. */
const ROUNDING_SECONDS = 1 / 8000;

/**
 * What comes out of a decoder.
 *
 * @typedef {object} Planes
 * @property {Float32Array[]} planes One for each channel, between -1 and 1.
 * @property {number} rate Samples a second.
 *
 * @typedef {object} DecoderEvents
 * @property {(sound: Planes) => void} output Called once for each packet, in order, perhaps before `decode` returns.
 * @property {() => void} fail The decoder can decode no more.
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
  /** Frames in their order: those without sound wait for a decoder, the others for those before them. @type {Item[]} */
  #items = [];
  #waitingMs = 0;
  /** Decoders that owe something, and the one that takes the next packet as the last. @type {Run[]} */
  #runs = [];
  #isDelivering = false;

  /**
   * @param {object} options
   * @param {(entry: Entry, sound: Sound) => void} options.deliver
   * @param {() => void} options.exhaust No decoder is left.
   */
  constructor({ deliver, exhaust }) {
    this.#deliver = deliver;
    this.#exhaust = exhaust;
  }

  /** @param {readonly OpenDecoder[]} decoders The best first. */
  setDecoders(decoders) {
    this.#decoders = [...decoders];
  }

  /** Whether everything that it took has been delivered. */
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
   * @param {boolean} isFirst Whether it does not follow the packet before it, so that a decoder begins with it.
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

  /** Discards what has not been delivered. The decoders go on. */
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
        // It failed at once, and the next decoder has got the packet.
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

  /** Gives what is owed to the next decoder. */
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

  /** Delivers what is ready. */
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

/** One decoder, from the first packet that it gets to the last. */
class Run {
  #events;
  /** Packets that it owes, or has not been given because it is still being opened. @type {Item[]} */
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

  /** Takes no more, and closes as soon as it owes nothing. */
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
      // Without a promise there is nothing to wait for, and the first packet becomes sound at once.
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
      // It leaves something out or keeps something back, so nobody knows where its sound belongs.
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
