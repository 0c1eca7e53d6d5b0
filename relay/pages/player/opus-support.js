/**
 * Finds a way to decode Opus: the browser's decoder, WebAssembly, or none.
 *
 * A browser that claims to decode Opus may still return silence or nothing, so each decoder first decodes a test tone.
 */

import { openWasm, loadWasm } from "./wasm-opus.js";
import { claimsOpus, openWebCodecs } from "./webcodecs-opus.js";

/** A player waits at most this long, and then plays PCM. */
const PATIENCE_MS = 3000;

/** Two packets of a tone of 997 Hz: 20 ms each, mono, made by libopus 1.5 at 6 kb/s. */
const PROBES = ["08858269c315b9c35c0485aa4f48", "08b67de498d0bff8b6ae214c914a5f910fd69cd7279524a999f0"].map((hex) =>
  Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16)),
);
const PROBE_TICKS = 960;

/** Minimum peak of the decoded tone. Its actual peak is about ten times as high. */
const LEAST_LEVEL = 0.03;

/** @type {import("./decoding.js").OpenDecoder} */
const openLoadedWasm = async (channels, events) => openWasm(await loadWasm(), channels, events);

/**
 * Finds the decoders that work.
 *
 * @returns {Promise<import("./decoding.js").OpenDecoder[]>} Best first; empty if none works or the search is too slow.
 */
export function findDecoders() {
  return Promise.race([find(), new Promise((resolve) => setTimeout(() => resolve([]), PATIENCE_MS))]);
}

async function find() {
  if (await decodes(openWebCodecs, claimsOpus)) {
    return [openWebCodecs, openLoadedWasm];
  }
  return (await decodes(openLoadedWasm)) ? [openLoadedWasm] : [];
}

/**
 * Whether a decoder turns the test packets into sound.
 *
 * @param {import("./decoding.js").OpenDecoder} open
 * @param {() => Promise<boolean>} claims Whether the decoder is worth a try.
 */
async function decodes(open, claims = async () => true) {
  /** @type {import("./decoding.js").Decoder | null} */
  let decoder = null;
  try {
    if (!(await claims())) {
      return false;
    }
    return await new Promise((resolve) => {
      let heard = 0;
      let loudest = 0;
      const output = (/** @type {import("./decoding.js").Planes} */ { planes }) => {
        heard += 1;
        loudest = planes[0].reduce((most, sample) => Math.max(most, Math.abs(sample)), loudest);
        if (heard === PROBES.length) {
          resolve(loudest >= LEAST_LEVEL);
        }
      };
      const begin = async () => {
        decoder = await open(1, { output, fail: () => resolve(false) });
        for (const probe of PROBES) {
          decoder.decode(probe, PROBE_TICKS);
        }
      };
      begin().catch(() => resolve(false));
      // This also rejects a decoder that holds its output back until it gets more packets.
      setTimeout(() => resolve(false), PATIENCE_MS / 2);
    });
  } catch {
    return false;
  } finally {
    /** @type {import("./decoding.js").Decoder | null} */ (decoder)?.close();
  }
}
