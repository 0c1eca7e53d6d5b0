/**
 * Reads the duration of an Opus packet from its first bytes. Pure.
 *
 * The source is RFC 6716, section 3.1. The first byte (TOC) contains the configuration, which defines the duration of
 * each frame, and a code for the number of frames. For code 3, the second byte contains that number.
 */

/** Ticks per second of Opus: 48 000 at any sample rate (RFC 7587, section 4.1). */
export const OPUS_CLOCK_RATE = 48_000;

/** A packet lasts at most 120 ms (requirement R5). */
const MOST_TICKS = 5760;

/** Frame durations in ticks: 10, 20, 40 and 60 ms for SILK; 10 and 20 ms for hybrid; 2.5 to 20 ms for CELT. */
const SILK = [480, 960, 1920, 2880];
const HYBRID = [480, 960];
const CELT = [120, 240, 480, 960];

const FIRST_HYBRID = 12;
const FIRST_CELT = 16;

/**
 * Returns the duration of a packet in ticks of `OPUS_CLOCK_RATE`.
 *
 * @param {Uint8Array} packet
 * @throws {RangeError} if it is not an Opus packet or lasts longer than 120 ms.
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
