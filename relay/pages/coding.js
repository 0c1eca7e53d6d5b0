/**
 * Encodes the frames of a broadcast: as Opus if the browser has an encoder (WebCodecs), otherwise as PCM.
 *
 * It runs in a Worker and needs no DOM. A coder emits one packet for each frame, with the duration of that frame.
 */

import { FRAME_SECONDS } from "./capture.js";
import { OPUS_CLOCK_RATE, opusTicks } from "./player/opus-packet.js";

/** The sample rate of PCM. It is enough for speech, and needs a quarter of a megabit per second. */
export const PCM_RATE = 16_000;

/** The sample rate of Opus is its highest, so listeners hear everything that the microphone delivers. */
const OPUS_RATE = OPUS_CLOCK_RATE;

/** Bits per second. This is enough for full-band speech and for good music. */
const BITRATE = 32_000;

/** Bound of the frames that wait for the encoder: one second. An encoder that falls further behind has failed. */
const MAX_PENDING_FRAMES = 50;

/** Time limit of the trial. Even a busy machine needs less, so an encoder that takes longer has hung. */
const PROBE_MS = 3000;
const PROBE_FRAMES = 5;
const TONE_HZ = 440;

/** A packet of silence has at most this many bytes, and a packet of a tone has more. */
const MAX_SILENT_BYTES = 8;

/** @type {AudioEncoderConfig} */
const OPUS_CONFIG = {
  codec: "opus",
  sampleRate: OPUS_RATE,
  numberOfChannels: 1,
  bitrate: BITRATE,
  // TCP loses nothing, so packets need no redundancy. Silence is sent too, because listeners count every packet.
  opus: { frameDuration: FRAME_SECONDS * 1e6, useinbandfec: false, usedtx: false },
};

/**
 * @typedef {object} Packet The audio of one message.
 * @property {Uint8Array<ArrayBuffer> | Int16Array<ArrayBuffer>} data
 * @property {number} ticks Its duration in ticks of the coder's clock.
 *
 * @typedef {object} Coder
 * @property {string} codec The name of the codec in the protocol.
 * @property {number} clockRate Ticks per second of its packets, and sample rate of its input.
 * @property {(samples: Int16Array<ArrayBuffer>) => void} encode Encodes a frame.
 * @property {() => Promise<void>} flush Resolves when the packets of all frames have been emitted.
 * @property {() => void} close Frees the encoder. The coder emits nothing afterwards.
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
      // If the coder closes meanwhile, the flush is rejected.
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
 * Checks whether this browser encodes Opus: it must say so, and encode a tone as packets of the right duration.
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
 * @param {number} from The index of the first sample.
 * @param {number} count
 */
function tone(from, count) {
  const step = (2 * Math.PI * TONE_HZ) / OPUS_RATE;
  return Int16Array.from({ length: count }, (_, i) => 8000 * Math.sin((from + i) * step));
}
