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

/** @returns {boolean} whether `text` can name a session or a channel. */
export function isName(text) {
  return NAME.test(text);
}

/** @returns {boolean} whether `text` has the form of a broadcast key or a token; any other can not be sent at all. */
export function isKey(text) {
  return KEY.test(text);
}

/**
 * Reads which channel a page's own path is about.
 *
 * @param {string} pathname `/listen/SESSION` or `/listen/SESSION/CHANNEL`, or the same with `broadcast`.
 * @returns {{session: string, channel: string | null}} raw path segments, which are never percent-decoded.
 */
export function readPagePath(pathname) {
  const [, , session = "", channel = null] = pathname.split("/");
  return { session, channel };
}

/** @returns {string} the WebSocket origin of the host that served a page at `location`. */
export function originOf({ protocol, host }) {
  return `${protocol === "https:" ? "wss:" : "ws:"}//${host}`;
}

/**
 * Gives the WebSocket address of a channel.
 *
 * @param {"listen" | "broadcast"} role
 * @param {{session: string, channel: string | null}} address
 * @param {{protocol: string, host: string}} location of the page that the relay served.
 * @param {Record<string, string | number>} query
 */
export function streamAddress(role, address, location, query = {}) {
  return addressAt(originOf(location), role, address, query);
}

/**
 * Gives the WebSocket address of a channel at any relay.
 *
 * @param {string} origin `ws(s)://host`, with or without a slash behind it; a path before `/v1` is kept.
 */
export function addressAt(origin, role, { session, channel }, query = {}) {
  const path = ["v1", role, session, ...(channel === null ? [] : [channel])].join("/");
  const parameters = new URLSearchParams(query).toString();
  return `${origin.replace(/\/+$/, "")}/${path}${parameters && `?${parameters}`}`;
}

/**
 * Reads one binary message: the header and a view, not a copy, of the samples behind it.
 *
 * @param {ArrayBuffer} message
 * @returns {{epoch: number, seq: number, mediaTime: number, dueMs: number, samples: Int16Array}} `mediaTime` in
 *   ticks of the format's clock rate, `dueMs` on the relay's clock; all four numbers wrap.
 * @throws {RangeError} when it is shorter than a header, of another version, or not whole 16-bit samples.
 */
export function readFrame(message) {
  if (message.byteLength < HEADER_BYTES || message.byteLength % 2 !== 0) {
    throw new RangeError(`${message.byteLength} bytes are not a header and 16-bit samples`);
  }
  const header = new DataView(message, 0, HEADER_BYTES);
  if (header.getUint8(0) !== VERSION) {
    throw new RangeError(`the header's version is ${header.getUint8(0)}, not ${VERSION}`);
  }
  return {
    epoch: header.getUint16(2),
    seq: header.getUint32(4),
    mediaTime: header.getUint32(8),
    dueMs: header.getUint32(12),
    samples: new Int16Array(message, HEADER_BYTES),
  };
}

/** @returns {Record<string, any> | null} the control message, or null for text that is none. */
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
 */
export function ahead(number, reference) {
  return (number - reference) | 0;
}

/** Likewise for the 16-bit epoch. */
export function epochAhead(epoch, reference) {
  return ((epoch - reference) << 16) >> 16;
}
