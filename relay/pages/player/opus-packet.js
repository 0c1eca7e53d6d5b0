/**
 * What the first bytes of an Opus packet say about its duration. Pure.
 *
 * The source is RFC 6716, section 3.1: the first byte (TOC) has the configuration, which says how long each frame is,
 * and a code, which says how many frames there are. For code 3, the second byte has their number.
 */

/** Ticks per second of Opus: 48 000, whatever the rate of the sound in it (RFC 7587, section 4.1). */
export const OPUS_CLOCK_RATE = 48_000;

/** A packet lasts at most 120 ms (requirement R5). */
const MOST_TICKS = 5760;

/** Ticks of 10, 20, 40 and 60 ms, the frames of SILK; of 10 and 20 ms, those of hybrid; of 2.5 to 20 ms, those of CELT. */
const SILK = [480, 960, 1920, 2880];
const HYBRID = [480, 960];
const CELT = [120, 240, 480, 960];

const FIRST_HYBRID = 12;
const FIRST_CELT = 16;

/**
 * Gives the duration of a packet, in ticks of `OPUS_CLOCK_RATE`.
 *
 * @param {Uint8Array} packet
 * @throws {RangeError} when its first bytes are none of an Opus packet, or last longer than 120 ms.
 */
export function opusTicks(packet) {
  const ticks = packet.length === 0 ? 0 : frameCount(packet) * frameTicks(packet[0] >> 3);
  if (ticks === 0 || ticks > MOST_TICKS) {
    throw new RangeError(`${packet.length} bytes that last ${ticks} ticks are no Opus packet`);
  }
  return ticks;
}

/** @param {number} config The configuration number, 0 to 31. */
function frameTicks(config) {
  if (config >= FIRST_CELT) {
    return CELT[config % CELT.length];
  }
  return config >= FIRST_HYBRID ? HYBRID[config % HYBRID.length] : SILK[config % SILK.length];
}

/** @param {Uint8Array} packet At least one byte. */
function frameCount(packet) {
  const code = packet[0] & 0b11;
  if (code === 3) {
    return packet.length < 2 ? 0 : packet[1] & 0b11_1111;
  }
  return code === 0 ? 1 : 2;
}
