/**
 * The client side of the `relay.v1` protocol: addresses, the binary header and control messages.
 *
 * Pure: no socket, no DOM, no clock. docs/protocol.md is the source of every figure.
 */

import { OPUS_CLOCK_RATE, opusTicks } from "./opus-packet.js";

export const PROTOCOL = "relay.v1";

/** A page cannot set headers on a WebSocket, so a token or key is sent as a second subprotocol. */
export const TOKEN_PREFIX = "relay.token.";

/** The codecs' names in queries and formats. */
export const OPUS = /** @type {const} */ ("opus");
export const PCM = /** @type {const} */ ("pcm_s16le");

const HEADER_BYTES = 16;

/** The flag of a message that contains several packets. */
const PACKED = 0x01;
const LENGTH_BYTES = 2;

const VERSION = 1;
const NAME = /^(?!\.+$)[A-Za-z0-9._~-]{1,64}$/;
const KEY = /^[A-Za-z0-9._~-]{8,4096}$/;

/**
 * @param {string} text
 * @returns {boolean} Whether it is a valid name of a session or channel.
 */
export function isName(text) {
  return NAME.test(text);
}

/**
 * @param {string} text
 * @returns {boolean} Whether it has the form of a broadcast key or a token. Any other text cannot be sent at all.
 */
export function isKey(text) {
  return KEY.test(text);
}

/**
 * Reads the session and channel from the address of a relay's page.
 *
 * @param {string} page The page's address: the relay's, then `listen/SESSION` or `listen/SESSION/CHANNEL`, or the same
 *   with `broadcast`.
 * @param {string} relay The relay's address, with a slash at its end.
 * @returns {{session: string, channel: string | null}} Raw path segments, which are never percent-decoded.
 */
export function readPageAddress(page, relay) {
  const [before, after] = [relay, page].map((address) => new URL(address).pathname);
  const [, session = "", channel = null] = after.slice(before.length).split("/");
  return { session, channel };
}

/**
 * Returns the WebSocket address of a channel.
 *
 * @param {string} relay `ws(s)://…` or `http(s)://…`, with or without a slash at its end; a path is kept.
 * @param {"listen" | "broadcast"} role
 * @param {{session: string, channel: string | null}} address
 * @param {Record<string, string | number>} query
 */
export function addressAt(relay, role, { session, channel }, query = {}) {
  const path = ["v1", role, session, ...(channel === null ? [] : [channel])].join("/");
  const parameters = new URLSearchParams(
    Object.entries(query).map(([name, value]) => [name, String(value)]),
  ).toString();
  return `${relay.replace(/^http/i, "ws").replace(/\/+$/, "")}/${path}${parameters && `?${parameters}`}`;
}

/**
 * Returns the address of a channel's HTTP stream.
 *
 * @param {string} relay As for `addressAt`.
 * @param {{session: string, channel: string}} address
 * @param {"opus" | "mp3"} ending
 * @param {string | null} token
 */
export function streamAddressAt(relay, { session, channel }, ending, token) {
  const query = token === null ? "" : `?token=${encodeURIComponent(token)}`;
  return `${relay.replace(/^ws/i, "http").replace(/\/+$/, "")}/stream/${session}/${channel}.${ending}${query}`;
}

/**
 * @typedef {object} Frame One frame of audio. The four numbers wrap.
 * @property {number} epoch
 * @property {number} seq
 * @property {number} mediaTime Ticks of the format's clock rate.
 * @property {number} dueMs Due time on the relay's clock.
 * @property {Uint8Array<ArrayBuffer>} audio A view of the message, not a copy.
 */

/**
 * Reads one binary message.
 *
 * @param {ArrayBuffer} message
 * @param {boolean} isOpus Whether its audio is Opus. Then it may contain several frames of one packet each.
 * @returns {Frame[]} Its frames in order; at least one.
 * @throws {RangeError} if it is shorter than a header, has another version, or does not match the format.
 */
export function readFrames(message, isOpus) {
  if (message.byteLength < HEADER_BYTES) {
    throw new RangeError(`A message of ${message.byteLength} bytes is shorter than a header`);
  }
  const header = new DataView(message, 0, HEADER_BYTES);
  if (header.getUint8(0) !== VERSION) {
    throw new RangeError(`The header has version ${header.getUint8(0)}, but this player knows only version ${VERSION}`);
  }
  const first = {
    epoch: header.getUint16(2),
    seq: header.getUint32(4),
    mediaTime: header.getUint32(8),
    dueMs: header.getUint32(12),
    audio: new Uint8Array(message, HEADER_BYTES),
  };
  if (isOpus && header.getUint8(1) & PACKED) {
    return unpack(first);
  }
  if (!isOpus && first.audio.length % 2 !== 0) {
    throw new RangeError(`${first.audio.length} bytes are not whole 16-bit samples`);
  }
  return [first];
}

/**
 * Unpacks a message with several packets, each of which follows its length. The header contains the numbers of the
 * first packet. Those of the others follow from the durations.
 *
 * @param {Frame} first The header's numbers, with all packets as its audio.
 * @returns {Frame[]}
 * @throws {RangeError} if a length does not fit or a packet is invalid.
 */
function unpack({ epoch, seq, mediaTime, dueMs, audio }) {
  const view = new DataView(audio.buffer, audio.byteOffset, audio.byteLength);
  const frames = [];
  let ticks = 0;
  for (let at = 0; at < audio.length || at === 0; ) {
    const length = at + LENGTH_BYTES <= audio.length ? view.getUint16(at) : Infinity;
    at += LENGTH_BYTES;
    if (at + length > audio.length) {
      throw new RangeError("a packed message ends inside a packet");
    }
    const packet = audio.subarray(at, at + length);
    frames.push({
      epoch,
      seq: (seq + frames.length) >>> 0,
      mediaTime: (mediaTime + ticks) >>> 0,
      dueMs: (dueMs + Math.floor((ticks * 1000) / OPUS_CLOCK_RATE)) >>> 0,
      audio: packet,
    });
    ticks += opusTicks(packet);
    at += length;
  }
  return frames;
}

/**
 * @param {string} text
 * @returns {import("./messages.js").Hello | import("./messages.js").ControlMessage | null} null if the text is not
 *   a control message. Its members are not checked.
 */
export function readMessage(text) {
  try {
    const message = JSON.parse(text);
    return typeof message?.type === "string" ? message : null;
  } catch {
    return null;
  }
}

/**
 * Returns how far one wrapping 32-bit number is ahead of another, by serial arithmetic: between -2^31 and 2^31 - 1.
 *
 * It also serves to unwrap: `long + ahead(wire, long)` is the number near `long` with the low 32 bits `wire`.
 *
 * @param {number} number
 * @param {number} reference
 */
export function ahead(number, reference) {
  return (number - reference) | 0;
}

/**
 * Returns the same as `ahead` for the 16-bit epoch.
 *
 * @param {number} epoch
 * @param {number} reference
 */
export function epochAhead(epoch, reference) {
  return ((epoch - reference) << 16) >> 16;
}
