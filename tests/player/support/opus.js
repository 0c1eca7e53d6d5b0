/** Opus for tests: fake packets, messages as a relay sends them, and a decoder in place of libopus. */

const TICKS = 960;
const LOOK_AHEAD = 312;

/** The first byte of a packet of one frame of 20 ms, mono: CELT, fullband. */
const TOC = 31 << 3;

export const OPUS_FORMAT = Object.freeze({ codec: "opus", rate: 48_000, channels: 1, clock_rate: 48_000 });

/**
 * Returns a fake packet that contains its sequence number instead of sound.
 *
 * @param {number} seq
 */
export function packetOf(seq) {
  const packet = new Uint8Array(5);
  packet[0] = TOC;
  new DataView(packet.buffer).setUint32(1, seq);
  return packet;
}

/**
 * Packs frames into one message, as a relay does.
 *
 * @param {{epoch: number, seq: number, dueMs: number}} first
 * @param {Uint8Array[]} packets
 */
export function opusMessage({ epoch, seq, dueMs }, packets) {
  const isPacked = packets.length > 1;
  const bytes = packets.reduce((sum, { length }) => sum + length + (isPacked ? 2 : 0), 0);
  const message = new ArrayBuffer(16 + bytes);
  const view = new DataView(message);
  view.setUint8(0, 1);
  view.setUint8(1, isPacked ? 1 : 0);
  view.setUint16(2, epoch);
  view.setUint32(4, seq);
  view.setUint32(8, (seq * TICKS - LOOK_AHEAD) >>> 0);
  view.setUint32(12, dueMs >>> 0);
  let at = 16;
  for (const packet of packets) {
    if (isPacked) {
      view.setUint16(at, packet.length);
      at += 2;
    }
    new Uint8Array(message, at).set(packet);
    at += packet.length;
  }
  return message;
}

/**
 * Returns a function that opens a decoder of fake packets.
 *
 * @param {object} options
 * @param {(index: number) => number} options.sound Sample `index` of the broadcaster at 48 kHz.
 * @param {(action: () => void) => void} [options.later] Delays the output. By default, it comes at once.
 * @param {number} [options.failsAfter] Number of packets before the decoder fails.
 */
export function toneDecoder({ sound, later = (action) => action(), failsAfter = Infinity }) {
  return (channels, { output, fail }) => {
    let count = 0;
    return {
      decode(packet) {
        count += 1;
        if (count > failsAfter) {
          later(fail);
          return;
        }
        const seq = new DataView(packet.buffer, packet.byteOffset).getUint32(1);
        const plane = Float32Array.from({ length: TICKS }, (_, i) => sound(seq * TICKS - LOOK_AHEAD + i));
        later(() => output({ planes: Array.from({ length: channels }, () => plane), rate: 48_000 }));
      },
      close() {},
    };
  };
}
