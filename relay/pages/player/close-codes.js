/**
 * What a close code means for a client. Pure. `python -m scripts.generate` writes the table from
 * relay/vocabulary/errors.py.
 *
 * Codes from 4000 to 4499 ask for a reconnection. Codes from 4500 to 4999 forbid it, and so do the codes of RFC 6455
 * after which another attempt would fail in the same way. After any other code, such as 1006 for a broken connection,
 * a client reconnects.
 */

// begin generated: close codes
export const SESSION_ENDED = 1000;
export const GOING_AWAY = 1001;
export const NOT_WEBSOCKET = 1002;
export const NOT_TAKEN = 1003;
export const CONNECTION_BROKE = 1006;
export const NOT_UTF8 = 1007;
export const POLICY = 1008;
export const TOO_BIG = 1009;
export const INTERNAL = 1011;
export const RESTARTING = 1012;
export const TOKEN_EXPIRED = 4001;
export const TAKEN_OVER = 4500;
export const DISCONNECTED = 4501;
export const NOT_ALLOWED = 4502;
export const CHANNEL_BUSY = 4503;
export const BAD_REQUEST = 4504;

const FINAL_CODES = new Set([SESSION_ENDED, NOT_WEBSOCKET, NOT_TAKEN, NOT_UTF8, POLICY, TOO_BIG]);

const SENTENCES = new Map([
  [SESSION_ENDED, "The session has ended."],
  [NOT_WEBSOCKET, "A protocol error occurred between this page and the relay. Reload the page."],
  [NOT_TAKEN, "A protocol error occurred between this page and the relay. Reload the page."],
  [NOT_UTF8, "A protocol error occurred between this page and the relay. Reload the page."],
  [POLICY, "The relay closed the connection because of something this page sent. Reload the page."],
  [TOO_BIG, "The relay closed the connection because a message was too big. Reload the page."],
  [TAKEN_OVER, "Another broadcaster took over this channel."],
  [DISCONNECTED, "The operator of the relay closed this connection."],
  [NOT_ALLOWED, "The relay did not accept the key for this session."],
  [CHANNEL_BUSY, "This channel already has a broadcaster."],
  [BAD_REQUEST, "The relay does not accept this page's address."],
]);
// end generated

/**
 * Whether a close code forbids a reconnection.
 *
 * @param {number} code A WebSocket close code.
 */
export function isFinal(code) {
  return FINAL_CODES.has(code) || (code >= 4500 && code <= 4999);
}

/**
 * Returns a sentence for the person that explains why a connection ended for good.
 *
 * @param {number} code The close code.
 * @param {string} told The relay's own explanation, which takes precedence, or "".
 */
export function closeSentence(code, told) {
  return told || (SENTENCES.get(code) ?? `The relay closed the connection (code ${code}).`);
}
