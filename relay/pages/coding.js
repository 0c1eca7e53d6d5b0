/**
 * How the frames of a broadcast are coded: as Opus where the browser has an encoder (WebCodecs), otherwise as PCM.
 *
 * Runs in a Worker; needs no DOM. Every packet that a coder emits lasts as long as the frame that it was made of.
 */

import { FRAME_SECONDS } from "./capture.js";
import { OPUS_CLOCK_RATE, opusTicks } from "./player/opus-packet.js";

/** The rate for listeners that get PCM. Enough for speech, and a quarter of a megabit a second. */
export const PCM_RATE = 16_000;

/** Opus is encoded at its full rate, so its listeners hear everything that the microphone delivers. */
const OPUS_RATE = OPUS_CLOCK_RATE;

/** Bits a second. This is enough for speech with its full bandwidth, and for pleasant music. */
const BITRATE = 32_000;

/** The bound of the frames that wait for the encoder, one second. An encoder that falls further behind has failed. */
const MAX_PENDING_FRAMES = 50;

/** How long the trial may take. A busy machine needs less, so an encoder that takes longer hangs. */
const PROBE_MS = 3000;
const PROBE_FRAMES = 5;
const TONE_HZ = 440;

/** A packet of silence has at most this many bytes. A packet of a tone has more. */
const MAX_SILENT_BYTES = 8;

/** @type {AudioEncoderConfig} */
const OPUS_CONFIG = {
  codec: "opus",
  sampleRate: OPUS_RATE,
  numberOfChannels: 1,
  bitrate: BITRATE,
  // TCP loses nothing, so the packets repeat nothing. Silence is sent too, because listeners count every packet.
  opus: { frameDuration: FRAME_SECONDS * 1e6, useinbandfec: false, usedtx: false },
};

/**
 * @typedef {object} Packet The audio of one message.
 * @property {Uint8Array<ArrayBuffer> | Int16Array<ArrayBuffer>} data
 * @property {number} ticks How long it lasts, in ticks of the coder's clock.
 *
 * @typedef {object} Coder
 * @property {string} codec Its name in the protocol.
 * @property {number} clockRate Ticks a second of its packets; also the rate of the samples that it takes.
 * @property {(samples: Int16Array<ArrayBuffer>) => void} encode Takes a frame.
 * @property {() => Promise<void>} flush Resolves when every frame that it took is emitted.
 * @property {() => void} close Frees the encoder. Nothing is emitted afterwards.
 *
 * @typedef {(packet: Packet) => void} Emit
 */

/** @implements {Coder} */
export class PcmCoder {
  codec = "pcm_s16le";
  clockRate = PCM_RATE;
  #emit;

  /** @param {Emit} emit */
  constructor(emit) {
    this.#emit = emit;
  }

  /** @param {Int16Array<ArrayBuffer>} samples */
  encode(samples) {
    this.#emit({ data: samples, ticks: samples.length });
  }

  async flush() {}

  close() {
    this.#emit = () => {};
  }
}

/** @implements {Coder} */
export class OpusCoder {
  codec = "opus";
  clockRate = OPUS_RATE;
  #encoder;
  #fail;
  #taken = 0;

  /**
   * @param {Emit} emit
   * @param {(error: Error) => void} onFail Called once if the encoder fails.
   */
  constructor(emit, onFail) {
    this.#fail = onFail;
    this.#encoder = new AudioEncoder({
      output: (chunk) => {
        const data = new Uint8Array(chunk.byteLength);
        chunk.copyTo(data);
        emit({ data, ticks: opusTicks(data) });
      },
      error: (error) => this.#lose(error),
    });
    this.#encoder.configure(OPUS_CONFIG);
  }

  /** @param {Int16Array<ArrayBuffer>} samples */
  encode(samples) {
    if (this.#encoder.state !== "configured") {
      return;
    }
    if (this.#encoder.encodeQueueSize > MAX_PENDING_FRAMES) {
      this.#lose(new Error("The browser's Opus encoder does not keep up."));
      return;
    }
    const audio = new AudioData({
      format: "s16",
      sampleRate: OPUS_RATE,
      numberOfFrames: samples.length,
      numberOfChannels: 1,
      timestamp: Math.round((this.#taken * 1e6) / OPUS_RATE),
      data: samples,
    });
    this.#taken += samples.length;
    this.#encoder.encode(audio);
    audio.close();
  }

  async flush() {
    if (this.#encoder.state === "configured") {
      // `close` may come first, which rejects this.
      await this.#encoder.flush().catch(() => {});
    }
  }

  close() {
    this.#fail = () => {};
    if (this.#encoder.state !== "closed") {
      this.#encoder.close();
    }
  }

  /** @param {Error} error */
  #lose(error) {
    const fail = this.#fail;
    this.close();
    fail(error);
  }
}

/**
 * Checks whether this browser encodes Opus. It has to say so, and to make packets of the right length from a tone.
 *
 * @returns {Promise<boolean>}
 */
export async function encodesOpus() {
  /** @type {OpusCoder | undefined} */
  let coder;
  /** @type {number | undefined} */
  let timer;
  try {
    if (!(await AudioEncoder.isConfigSupported(OPUS_CONFIG)).supported) {
      return false;
    }
    /** @type {Packet[]} */
    const packets = [];
    const samples = OPUS_RATE * FRAME_SECONDS;
    const failed = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("The encoder hangs.")), PROBE_MS);
      coder = new OpusCoder((packet) => packets.push(packet), reject);
    });
    for (let i = 0; i < PROBE_FRAMES; i += 1) {
      coder?.encode(tone(i * samples, samples));
    }
    await Promise.race([coder?.flush(), failed]);
    const sound = packets.filter(({ data, ticks }) => ticks === samples && data.length > MAX_SILENT_BYTES);
    return sound.length >= PROBE_FRAMES - 1;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    coder?.close();
  }
}

/**
 * @param {number} from The first sample.
 * @param {number} count
 */
function tone(from, count) {
  const step = (2 * Math.PI * TONE_HZ) / OPUS_RATE;
  return Int16Array.from({ length: count }, (_, i) => 8000 * Math.sin((from + i) * step));
}
