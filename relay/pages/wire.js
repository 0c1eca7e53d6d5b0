/**
 * The `relay.v1` protocol as a browser sees it: addresses, the binary header, control messages, close codes.
 *
 * Pure: no socket, no DOM, no clock. The source of every figure is docs/protocol.md.
 */

export const PROTOCOL = "relay.v1";

/** A page can not set headers on a WebSocket, so a key travels as a second offered subprotocol. */
export const TOKEN_PREFIX = "relay.token.";

export const HEADER_BYTES = 16;

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

/**
 * Gives the WebSocket address of a channel on the host that served the page.
 *
 * @param {"listen" | "broadcast"} role
 * @param {{session: string, channel: string | null}} address
 * @param {{protocol: string, host: string}} location the page's.
 * @param {Record<string, string | number>} query
 */
export function streamAddress(role, { session, channel }, location, query = {}) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const path = ["", "v1", role, session, ...(channel === null ? [] : [channel])].join("/");
  const parameters = new URLSearchParams(query).toString();
  return `${scheme}//${location.host}${path}${parameters && `?${parameters}`}`;
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

const FINAL_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009]);

/**
 * Tells whether a close forbids to connect again.
 *
 * @param {number} code A WebSocket close code; 1006 is a connection that broke.
 */
export function isFinal(code) {
  return FINAL_CODES.has(code) || (code >= 4500 && code <= 4999);
}

const SENTENCES = new Map([
  [1000, "The session has ended."],
  [1002, "This browser and the relay do not understand each other. Reload the page."],
  [1003, "This browser and the relay do not understand each other. Reload the page."],
  [1007, "This browser and the relay do not understand each other. Reload the page."],
  [1008, "The relay closed the connection because of something this page sent. Reload the page."],
  [1009, "The relay closed the connection because a message was too big. Reload the page."],
  [4500, "Another broadcaster took over this channel."],
  [4501, "The operator of the relay closed this connection."],
  [4502, "The relay did not accept the key for this session."],
  [4503, "This channel has a broadcaster already."],
  [4504, "The relay does not understand this page's address."],
]);

/**
 * Says why a connection ended for good, in a sentence for a person.
 *
 * @param {number} code The close code.
 * @param {string} told What the relay itself said, or an empty string; it wins over our own words.
 */
export function closeSentence(code, told) {
  return told || (SENTENCES.get(code) ?? `The relay closed the connection (code ${code}).`);
}
