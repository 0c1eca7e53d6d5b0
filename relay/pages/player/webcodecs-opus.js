/** Decodes Opus with the browser's own decoder (WebCodecs). */

import { OPUS_CLOCK_RATE } from "./opus-packet.js";

/** @param {number} channels */
const configOf = (channels) => ({ codec: "opus", sampleRate: OPUS_CLOCK_RATE, numberOfChannels: channels });

/** Whether the browser claims to decode Opus. Only a decoded packet proves it. */
export async function claimsOpus() {
  if (globalThis.AudioDecoder === undefined || globalThis.EncodedAudioChunk === undefined) {
    return false;
  }
  const { supported } = await AudioDecoder.isConfigSupported(configOf(1));
  return supported === true;
}

/**
 * @param {number} channels
 * @param {import("./decoding.js").DecoderEvents} events
 * @returns {import("./decoding.js").Decoder}
 */
export function openWebCodecs(channels, { output, fail }) {
  const decoder = new AudioDecoder({
    output: (data) => {
      // A browser may decode to another rate or number of channels than requested.
      const planes = Array.from({ length: data.numberOfChannels }, (_, planeIndex) => {
        const plane = new Float32Array(data.numberOfFrames);
        data.copyTo(plane, { planeIndex, format: "f32-planar" });
        return plane;
      });
      const rate = data.sampleRate;
      data.close();
      output({ planes, rate });
    },
    error: () => fail(),
  });
  decoder.configure(configOf(channels));
  let ticks = 0;

  return {
    decode(packet, packetTicks) {
      const timestamp = Math.round((ticks * 1_000_000) / OPUS_CLOCK_RATE);
      ticks += packetTicks;
      decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, data: packet }));
    },
    close() {
      if (decoder.state !== "closed") {
        decoder.close();
      }
    },
  };
}
