/**
 * Decodes Opus with libopus as WebAssembly, for browsers without a decoder of their own.
 *
 * `opus-decoder.wasm` is the module of the npm package `opus-decoder`, which embeds it in its JavaScript. As a separate
 * file, it costs nothing in browsers that do not need it. Its licenses are in opus-decoder.LICENSE.
 */

import { OPUS_CLOCK_RATE } from "./opus-packet.js";

/** RFC 6716, section 3.4: a packet has at most 48 frames of at most 1275 bytes, and lasts at most 120 ms. */
const MOST_BYTES = 48 * 1275;
const MOST_SAMPLES = 5760;

const BYTES_PER_FLOAT = 4;

/**
 * The module's exports, under the short names that its build assigned.
 *
 * @typedef {object} Exports
 * @property {WebAssembly.Memory} g
 * @property {() => void} h Initializes.
 * @property {(rate: number, channels: number, streams: number, coupled: number, mapping: number, preSkip: number, forceStereo: number) => number} i Creates a decoder.
 * @property {(bytes: number) => number} j Allocates memory.
 * @property {(decoder: number, packet: number, bytes: number, planes: number) => number} k Decodes a packet to planes of floats.
 */

/** The module's imports: a cosine, and unused functions to abort, set timers and grow memory. */
const IMPORTS = {
  a: {
    a: Math.cos,
    b: abort,
    c: () => {},
    d: abort,
    e: () => 0,
    f: () => 0,
  },
};

/** @type {Promise<WebAssembly.Module> | null} */
let loading = null;

/**
 * Loads the module once.
 *
 * @returns {Promise<WebAssembly.Module>}
 * @throws {Error} if it cannot be fetched, or if the page's policy forbids WebAssembly.
 */
export function loadWasm() {
  loading ??= fetchModule();
  return loading;
}

async function fetchModule() {
  const response = await fetch(new URL("./opus-decoder.wasm", import.meta.url));
  if (!response.ok) {
    throw new Error(`opus-decoder.wasm: HTTP status ${response.status}`);
  }
  // `compileStreaming` would require a content type that not every server sends.
  return WebAssembly.compile(await response.arrayBuffer());
}

/**
 * @param {WebAssembly.Module} module
 * @param {number} channels
 * @param {import("./decoding.js").DecoderEvents} events
 * @returns {import("./decoding.js").Decoder}
 */
export function openWasm(module, channels, { output, fail }) {
  const exports = /** @type {Exports} */ (/** @type {unknown} */ (new WebAssembly.Instance(module, IMPORTS).exports));
  exports.h();
  const packetAt = exports.j(MOST_BYTES);
  const planesAt = exports.j(MOST_SAMPLES * channels * BYTES_PER_FLOAT);
  const mappingAt = exports.j(channels);
  const memory = exports.g.buffer;
  new Uint8Array(memory, mappingAt, channels).set(Array.from({ length: channels }, (_, channel) => channel));
  const decoder = exports.i(OPUS_CLOCK_RATE, channels, 1, channels - 1, mappingAt, 0, 0);

  return {
    decode(packet) {
      if (packet.length > MOST_BYTES) {
        fail();
        return;
      }
      new Uint8Array(memory, packetAt, packet.length).set(packet);
      const samples = exports.k(decoder, packetAt, packet.length, planesAt);
      if (samples < 0) {
        fail();
        return;
      }
      const bytes = samples * BYTES_PER_FLOAT;
      const planes = Array.from({ length: channels }, (_, channel) =>
        new Float32Array(memory, planesAt + channel * bytes, samples).slice(),
      );
      output({ planes, rate: OPUS_CLOCK_RATE });
    },
    // The instance's memory is freed together with the instance.
    close() {},
  };
}

/** @returns {never} */
function abort() {
  throw new Error("libopus aborted");
}
