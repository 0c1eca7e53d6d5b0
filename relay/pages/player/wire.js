/**
 * The `relay.v1` protocol as a browser sees it: addresses, the binary header, control messages.
 *
 * Pure: no socket, no DOM, no clock. The source of every figure is docs/protocol.md.
 */

export const PROTOCOL = "relay.v1";

/** A page can not set headers on a WebSocket, so a token or key travels as a second offered subprotocol. */
export const TOKEN_PREFIX = "relay.token.";

const HEADER_BYTES = 16;

const VERSION = 1;
const NAME = /^(?!\.+$)[A-Za-z0-9._~-]{1,64}$/;
const KEY = /^[A-Za-z0-9._~-]{8,4096}$/;

/**
 * @param {string} text
 * @returns {boolean} whether it can name a session or a channel.
 */
export function isName(text) {
  return NAME.test(text);
}

/**
 * @param {string} text
 * @returns {boolean} whether it has the form of a broadcast key or a token; any other can not be sent at all.
 */
export function isKey(text) {
  return KEY.test(text);
}

/**
 * Reads which channel a page of a relay is about.
 *
 * @param {string} page Its address: `listen/SESSION` or `listen/SESSION/CHANNEL` behind the relay's, or the same with `broadcast`.
 * @param {string} relay The relay's address, with the slash at its end.
 * @returns {{session: string, channel: string | null}} raw path segments, which are never percent-decoded.
 */
export function readPageAddress(page, relay) {
  const [before, after] = [relay, page].map((address) => new URL(address).pathname);
  const [, session = "", channel = null] = after.slice(before.length).split("/");
  return { session, channel };
}

/**
 * Gives the WebSocket address of a channel.
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
 * What a binary message holds. All four numbers wrap.
 *
 * @typedef {object} Frame
 * @property {number} epoch
 * @property {number} seq
 * @property {number} mediaTime In ticks of the format's clock rate.
 * @property {number} dueMs On the relay's clock.
 * @property {Int16Array<ArrayBuffer>} samples
 */

/**
 * Reads one binary message: the header and a view, not a copy, of the samples behind it.
 *
 * @param {ArrayBuffer} message
 * @returns {Frame}
 * @throws {RangeError} when it is shorter than a header, of another version, or not whole 16-bit samples.
 */
export function readFrame(message) {
  if (message.byteLength < HEADER_BYTES || message.byteLength % 2 !== 0) {
    throw new RangeError(`A message of ${message.byteLength} bytes is not a header with 16-bit samples`);
  }
  const header = new DataView(message, 0, HEADER_BYTES);
  if (header.getUint8(0) !== VERSION) {
    throw new RangeError(`The header has version ${header.getUint8(0)}, but this player knows only version ${VERSION}`);
  }
  return {
    epoch: header.getUint16(2),
    seq: header.getUint32(4),
    mediaTime: header.getUint32(8),
    dueMs: header.getUint32(12),
    samples: new Int16Array(message, HEADER_BYTES),
  };
}

/**
 * @param {string} text
 * @returns {import("./messages.js").Hello | import("./messages.js").ControlMessage | null} null for text that is no control message. Its members are what the relay says.
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
 * Tells how far one wrapping 32-bit number is ahead of another, by serial arithmetic: between -2^31 and 2^31 - 1.
 *
 * Unwraps as well: `long + ahead(wire, long)` is the number near `long` whose low 32 bits are `wire`.
 *
 * @param {number} number
 * @param {number} reference
 */
export function ahead(number, reference) {
  return (number - reference) | 0;
}

/**
 * Likewise for the 16-bit epoch.
 *
 * @param {number} epoch
 * @param {number} reference
 */
export function epochAhead(epoch, reference) {
  return ((epoch - reference) << 16) >> 16;
}
